package archive

import "context"

// ahead runs produce, which calls next with one item after the other, in a goroutine of its own, and consume with the items in that
// order in this one. After consume has failed nothing is consumed any more, and next fails. The error is that of
// consume, or else of produce.
func ahead[T any](ctx context.Context, produce func(ctx context.Context, next func(T) error) error, consume func(T) error) error {
	const batch, batches = 64, 8 // switching goroutines for every item would cost more than it gains
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	full := make(chan []T, batches)
	var failed error
	go func() {
		defer close(full)
		var items []T
		send := func() error {
			select {
			case full <- items:
				items = nil
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		failed = produce(ctx, func(item T) error {
			if items = append(items, item); len(items) < batch {
				return nil
			}
			return send()
		})
		if err := send(); failed == nil {
			failed = err
		}
	}()
	var err error
	for items := range full {
		for _, item := range items {
			if err == nil {
				err = consume(item)
			}
		}
		if err != nil {
			cancel()
		}
	}
	if err != nil {
		return err
	}
	return failed
}
