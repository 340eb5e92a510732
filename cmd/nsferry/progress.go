package main

import (
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

// progressDelay is how long a command may work in silence.
const progressDelay = time.Second

// Progress is the line on a terminal that shows how far a command has come. A nil Progress shows nothing.
type Progress struct {
	lines *mpb.Progress
	bar   *mpb.Bar
	timer *time.Timer
}

// Progress starts a line that counts bytes up to total (0 if that is not known yet) and appears after a second. It
// returns nil where nobody would see it or wants to. The caller calls Done before anything else is printed.
func (o *Out) Progress(what string, total int64) *Progress {
	f, ok := o.Stderr.(*os.File)
	if !ok || o.json || o.quiet || o.noProgress || !isTerminal(f) {
		return nil
	}
	show := make(chan struct{})
	p := &Progress{
		lines: mpb.New(mpb.WithOutput(f), mpb.WithWidth(40), mpb.WithRenderDelay(show)),
		timer: time.AfterFunc(progressDelay, func() { close(show) }),
	}
	p.bar = p.lines.AddBar(total,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(what+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f "), decor.AverageETA(decor.ET_STYLE_GO)))
	return p
}

// Set moves the line to done of total bytes. Any goroutine may call it.
func (p *Progress) Set(done, total int64) {
	if p != nil {
		p.bar.SetTotal(total, false)
		p.bar.SetCurrent(done)
	}
}

// Done takes the line off the terminal and waits until it is gone.
func (p *Progress) Done() {
	if p != nil {
		p.timer.Stop()
		p.bar.Abort(true)
		p.lines.Wait()
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
