package main

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

// event is the line on stderr that --json prints once a second while a command works on bytes: docs/DEPLOY.md.
type event struct {
	Event     string  `json:"event"` // "progress"
	What      string  `json:"what"`
	Done      int64   `json:"done"`                // bytes
	Total     int64   `json:"total,omitempty"`     // left out when not known
	Rate      int64   `json:"rate"`                // bytes a second, since the beginning
	Remaining float64 `json:"remaining,omitempty"` // seconds; left out when not known
}

// events prints events until stop is called.
type events struct {
	what  string
	out   io.Writer
	begin time.Time

	mu          sync.Mutex
	done, total int64

	quit  chan struct{}
	ended chan struct{}
}

func newEvents(what string, total int64, out io.Writer) *events {
	e := &events{what: what, out: out, begin: time.Now(), total: total, quit: make(chan struct{}), ended: make(chan struct{})}
	go e.run()
	return e
}

func (e *events) run() {
	defer close(e.ended)
	tick := time.NewTicker(progressDelay)
	defer tick.Stop()
	for {
		select {
		case <-e.quit:
			return
		case now := <-tick.C:
			// Whoever does not read them shall not end the work.
			_ = json.NewEncoder(e.out).Encode(e.event(now))
		}
	}
}

func (e *events) event(now time.Time) event {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := event{Event: "progress", What: e.what, Done: e.done, Total: e.total}
	seconds := now.Sub(e.begin).Seconds()
	v.Rate = int64(float64(e.done) / seconds)
	if v.Rate > 0 && e.total > e.done {
		v.Remaining = float64((e.total-e.done)*10/v.Rate) / 10
	}
	return v
}

func (e *events) set(done, total int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done, e.total = done, total
}

func (e *events) stop() {
	close(e.quit)
	<-e.ended
}
