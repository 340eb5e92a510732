package zframe_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsferry/nsferry/archive/zframe"
)

func TestOrderedKeepsOrder(t *testing.T) {
	for _, workers := range []int{1, 2, 7} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			var got, want []int
			var inFlight, most atomic.Int64
			busy := make([]atomic.Bool, workers)
			o := zframe.NewOrdered(t.Context(), zframe.Limits{Workers: workers, Jobs: 5, Bytes: 100}, func(n int) error {
				got = append(got, n)
				inFlight.Add(-30)
				return nil
			})
			for i := range 300 {
				want = append(want, i)
				check(t, o.Submit(30, func(worker int) (int, error) {
					if busy[worker].Swap(true) {
						t.Errorf("worker %d has two jobs", worker)
					}
					defer busy[worker].Store(false)
					if n := inFlight.Add(30); n > most.Load() {
						most.Store(n)
					}
					time.Sleep(time.Duration(i*7919%5) * 100 * time.Microsecond)
					return i, nil
				}))
			}
			check(t, o.Wait())
			if !slices.Equal(got, want) {
				t.Errorf("order %v", got)
			}
			if most.Load() > 100 {
				t.Errorf("%d bytes in flight", most.Load())
			}
		})
	}
}

func TestOrderedFirstErrorWins(t *testing.T) {
	before := runtime.NumGoroutine()
	early, late := errors.New("early"), errors.New("late")
	for name, c := range map[string]struct {
		consume func(int) error
		jobErr  map[int]error
		want    error
		got     int
	}{
		"job":      {func(int) error { return nil }, map[int]error{10: early, 11: late}, early, 10},
		"consumer": {func(n int) error { return map[int]error{5: early}[n] }, map[int]error{8: late}, early, 6},
	} {
		consumed := 0
		o := zframe.NewOrdered(t.Context(), zframe.Limits{Workers: 3}, func(n int) error { consumed++; return c.consume(n) })
		var submitErr error
		for i := 0; i < 10000 && submitErr == nil; i++ {
			submitErr = o.Submit(1, func(int) (int, error) {
				if c.jobErr[i] == early {
					time.Sleep(10 * time.Millisecond) // the later error happens first
				}
				return i, c.jobErr[i]
			})
		}
		if err := o.Wait(); err != c.want || submitErr != c.want || consumed != c.got {
			t.Errorf("%s: Submit %v, Wait %v, %d consumed", name, submitErr, err, consumed)
		}
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines left", n-before)
	}
}

func TestOrderedCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := zframe.NewOrdered(ctx, zframe.Limits{Workers: 2, Bytes: 10}, func(int) error { cancel(); return nil })
	var err error
	for err == nil {
		err = o.Submit(1000, func(int) (int, error) { return 0, nil })
	}
	if waitErr := o.Wait(); !errors.Is(err, context.Canceled) || !errors.Is(waitErr, context.Canceled) {
		t.Errorf("Submit %v, Wait %v", err, waitErr)
	}
}

func TestEncodersOfOneNameAgree(t *testing.T) {
	if _, err := zframe.NewEncoder(0); err == nil {
		t.Error("level 0 is accepted")
	}
	a, err := zframe.NewEncoder(3)
	check(t, err)
	b, err := zframe.NewEncoder(3)
	check(t, err)
	raw := sample(3 << 20)
	a.Encode(nil, raw[:1<<20]) // what an encoder has done before must not show
	x, y := a.Encode([]byte("dst"), raw), b.Encode(nil, raw)
	if string(x) != "dst"+string(y) || a.Name() != "klauspost/3" || a.Name() != b.Name() {
		t.Errorf("%d and %d bytes, %s and %s", len(x), len(y), a.Name(), b.Name())
	}
	random := run(t, raw, "gzip", "-9c")
	if got := a.Encode(nil, random); len(got) > zframe.MaxEncoded(len(random)) {
		t.Errorf("%d bytes become %d, more than %d", len(random), len(got), zframe.MaxEncoded(len(random)))
	}
}

// TestOrderedRunsWhatWasTaken: a job may wait for one that was submitted before it. When the pipeline fails in between, that one
// must run all the same.
func TestOrderedRunsWhatWasTaken(t *testing.T) {
	failure := errors.New("failure")
	for range 20_000 {
		o := zframe.NewOrdered(t.Context(), zframe.Limits{Workers: 4, Jobs: 8}, func(n int) error {
			if n == 1 {
				return failure
			}
			return nil
		})
		before := make(chan struct{})
		close(before)
		for n := range 8 {
			ready := make(chan struct{})
			wait := before
			if o.Submit(1, func(int) (int, error) {
				<-wait
				close(ready)
				return n, nil
			}) != nil {
				break
			}
			before = ready
		}
		ended := make(chan error)
		go func() { ended <- o.Wait() }()
		select {
		case err := <-ended:
			if !errors.Is(err, failure) {
				t.Fatal(err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("it waits for ever")
		}
	}
}
