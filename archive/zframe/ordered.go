package zframe

import (
	"context"
	"runtime"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Limits bounds what an Ordered pipeline has in flight. Zero values mean the defaults.
type Limits struct {
	Workers int   // goroutines that run jobs; default GOMAXPROCS
	Jobs    int   // jobs submitted and not yet consumed; default 4 a worker
	Bytes   int64 // sum of their costs; default 64 MiB
}

func (l Limits) withDefaults() Limits {
	if l.Workers <= 0 {
		l.Workers = runtime.GOMAXPROCS(0)
	}
	if l.Jobs <= 0 {
		l.Jobs = 4 * l.Workers
	}
	if l.Bytes <= 0 {
		l.Bytes = 64 << 20
	}
	return l
}

// Job is one piece of work. worker, from 0 to Limits.Workers-1, picks state that is not to be shared, such as an Encoder;
// no two jobs run at one time with the same number. A job may wait for one that was submitted before it: that one runs.
type Job[T any] func(worker int) (T, error)

// Ordered runs jobs on several workers and hands their results to one consumer in the order of submission. It is the
// one parallel shape of archives: a slow job holds back the consumer, never the order. The first error in
// that order, of a job or the consumer, ends everything and is what Submit and Wait return.
//
// Submit and Wait belong to one producer goroutine. Wait must be called, also after an error: it is what ends the goroutines.
type Ordered[T any] struct {
	ctx    context.Context // the pipeline's life, not a caller's: cancelled by the first error
	fail   context.CancelCauseFunc
	limits Limits
	budget *semaphore.Weighted
	queue  chan *slot[T] // to the consumer, in order
	work   chan *slot[T] // to the workers
	group  sync.WaitGroup
}

type slot[T any] struct {
	job  Job[T]
	cost int64
	out  T
	err  error
	done chan struct{}
}

// NewOrdered starts a pipeline. consume is called in one goroutine, in order, and owns what it gets. Cancelling ctx stops the pipeline.
func NewOrdered[T any](ctx context.Context, l Limits, consume func(T) error) *Ordered[T] {
	l = l.withDefaults()
	o := &Ordered[T]{limits: l, budget: semaphore.NewWeighted(l.Bytes), queue: make(chan *slot[T], l.Jobs), work: make(chan *slot[T])}
	o.ctx, o.fail = context.WithCancelCause(ctx)
	o.group.Add(l.Workers + 1)
	for w := range l.Workers {
		go o.runWorker(w)
	}
	go o.runConsumer(consume)
	return o
}

// Submit hands a job over and returns when a worker has taken it. It blocks while the limits are reached. cost is
// what job and result occupy in bytes; a job that costs more than the whole budget runs alone. The error is the pipeline's first.
func (o *Ordered[T]) Submit(cost int64, job Job[T]) error {
	s := &slot[T]{job: job, cost: min(max(cost, 0), o.limits.Bytes), done: make(chan struct{})}
	if err := o.budget.Acquire(o.ctx, s.cost); err != nil {
		return context.Cause(o.ctx)
	}
	select {
	case o.queue <- s:
	case <-o.ctx.Done():
		return context.Cause(o.ctx)
	}
	select {
	case o.work <- s:
		return nil
	case <-o.ctx.Done():
		s.err = context.Cause(o.ctx)
		close(s.done)
		return s.err
	}
}

// Wait says that no job follows, waits until all results are consumed and every goroutine has ended, and returns the first error.
func (o *Ordered[T]) Wait() error {
	close(o.queue)
	close(o.work)
	o.group.Wait()
	err := context.Cause(o.ctx)
	o.fail(nil)
	return err
}

func (o *Ordered[T]) runWorker(worker int) {
	defer o.group.Done()
	for s := range o.work { // also when the pipeline has failed: one that came later may run already and wait for this one
		s.out, s.err = s.job(worker)
		close(s.done)
	}
}

func (o *Ordered[T]) runConsumer(consume func(T) error) {
	defer o.group.Done()
	for s := range o.queue {
		<-s.done
		err := s.err
		if err == nil && o.ctx.Err() == nil {
			err = consume(s.out)
		}
		if err != nil {
			o.fail(err)
		}
		o.budget.Release(s.cost)
	}
}
