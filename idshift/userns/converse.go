package userns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// converse runs one half in a child: start, progress, result. See Half.Run for its errors.
func (e *Env) converse(ctx context.Context, s session, progress func(json.RawMessage)) (json.RawMessage, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	c, err := e.spawn(s)
	if err != nil {
		return nil, e.blame(err)
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-ctx.Done():
			c.cancel()
			c.afterGrace(e.grace())
		case <-c.done:
		}
	}()
	answer, readErr := c.listen(func(m upMessage) {
		if progress != nil && m.Progress != nil {
			progress(m.Progress)
		}
	})
	if readErr != nil {
		c.kill() // it talks nonsense; there is nothing more to learn from it
	}
	<-c.done
	<-watched
	status := c.wait()
	switch {
	case readErr != nil:
		err = fmt.Errorf("%s: control socket: %w", s.name, readErr)
	case answer.Setup != nil:
		err = e.blame(&spawnError{step: answer.Setup.Step, err: answer.Setup.Errno})
	case answer.Error != nil:
		err = answer.Error
	case answer.Result == nil:
		err = &DiedError{Name: s.name, Status: status}
	}
	if err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = &canceledError{cause: context.Cause(ctx), err: err}
	}
	return answer.Result, err
}

// next reads one line. io.EOF says that the process has ended, or closed its end.
func (c *child) next(m *upMessage) error {
	*m = upMessage{}
	err := c.lines.Decode(m)
	if err != nil && isDeadPeer(err) {
		return io.EOF
	}
	return err
}

// listen reads lines until end of file, that is until the process has ended, and returns the last one that is no report.
// Reports on the way are given to report.
func (c *child) listen(report func(upMessage)) (upMessage, error) {
	var answer upMessage
	for {
		var m upMessage
		err := c.next(&m)
		switch {
		case err == io.EOF:
			return answer, nil
		case err != nil:
			return answer, err
		case m.Progress != nil || m.Note != "":
			report(m)
		default:
			answer = m
		}
	}
}

// canceledError is what came of a half after ctx was done: the cause is in the chain, the half's own words are kept.
type canceledError struct{ cause, err error }

func (c *canceledError) Error() string   { return c.err.Error() }
func (c *canceledError) Unwrap() []error { return []error{c.cause, c.err} }
