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

// Progress shows how far a command has come: by a line on a terminal, or by events in JSON. A nil Progress shows nothing.
type Progress struct {
	lines  *mpb.Progress
	bar    *mpb.Bar
	timer  *time.Timer
	events *events // instead of the line
}

// Progress starts to count bytes up to total (0 if that is not known yet), and shows them from the first second on. It
// returns nil where nobody would see it or wants to. The caller calls Done before anything else is printed.
func (o *Out) Progress(what string, total int64) *Progress {
	if o.quiet || o.noProgress {
		return nil
	}
	if o.json {
		return &Progress{events: newEvents(what, total, o.Stderr)}
	}
	f, ok := o.Stderr.(*os.File)
	if !ok || !isTerminal(f) {
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
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f "), decor.AverageETA(decor.ET_STYLE_GO)))
	return p
}

// Set moves it to done of total bytes. Any goroutine may call it.
func (p *Progress) Set(done, total int64) {
	switch {
	case p == nil:
	case p.events != nil:
		p.events.set(done, total)
	default:
		p.bar.SetTotal(total, false)
		p.bar.SetCurrent(done)
	}
}

// Done takes the line off the terminal and waits until it is gone.
func (p *Progress) Done() {
	switch {
	case p == nil:
	case p.events != nil:
		p.events.stop()
	default:
		p.timer.Stop()
		p.bar.Abort(true)
		p.lines.Wait()
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
