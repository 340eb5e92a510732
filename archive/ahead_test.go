package archive

import (
	"context"
	"errors"
	"testing"
)

// TestAhead hands on every item in order, and the first failure of either side.
func TestAhead(t *testing.T) {
	ours, theirs := errors.New("ours"), errors.New("theirs")
	for _, c := range []struct {
		name         string
		items        int
		produced     error // after the items
		consumedUpTo int   // -1: all
		want         error
	}{
		{"none", 0, nil, -1, nil},
		{"one", 1, nil, -1, nil},
		{"many", 100_001, nil, -1, nil},
		{"producer fails", 1000, ours, -1, ours},
		{"producer fails at once", 0, ours, -1, ours},
		{"consumer fails", 100_000, nil, 333, theirs},
		{"consumer fails at once", 100_000, ours, 0, theirs},
		{"both fail", 10, ours, 5, theirs},
	} {
		got := 0
		err := ahead(t.Context(), func(_ context.Context, next func(int) error) error {
			for i := range c.items {
				if err := next(i); err != nil {
					return err
				}
			}
			return c.produced
		}, func(i int) error {
			if i != got {
				t.Fatalf("%s: item %d after %d", c.name, i, got)
			}
			if i == c.consumedUpTo {
				return theirs
			}
			got++
			return nil
		})
		want := c.items
		if c.consumedUpTo >= 0 {
			want = c.consumedUpTo
		}
		if got != want || !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %d items, %v", c.name, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := ahead(ctx, func(_ context.Context, next func(int) error) error {
		for {
			if err := next(0); err != nil {
				return err
			}
		}
	}, func(int) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}
