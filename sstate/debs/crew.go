package debs

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// crew does the jobs 0 to n-1, some at once, each worker with a buffer of its own. The first error ends it; then ctx of the jobs under way is done.
func crew(ctx context.Context, workers, n int, job func(ctx context.Context, i int, buf []byte) error) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(workers, n) {
		group.Go(func() error {
			buf := make([]byte, bufSize)
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := job(ctx, i, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// errand is work that goes on while something else is done.
type errand[T any] struct {
	done   chan struct{}
	result T
	err    error
}

// send begins an errand. The caller waits for it in any case.
func send[T any](work func() (T, error)) *errand[T] {
	e := &errand[T]{done: make(chan struct{})}
	go func() {
		defer close(e.done)
		e.result, e.err = work()
	}()
	return e
}

func (e *errand[T]) wait() (T, error) {
	<-e.done
	return e.result, e.err
}

// over tells whether wait would not have to.
func (e *errand[T]) over() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}
