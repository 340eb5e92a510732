package userns

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nsferry/nsferry/idshift/userns/mounts"
)

// Keeper is a half that attends a run from before the command starts until everything is over, and outlives the outer process if
// need be: it prepares, says so by one in.Progress, calls in.WaitRun, and cleans up. Exec starts the command after the
// first, and calls Spec.After before in.WaitRun returns.
type Keeper struct {
	half  string
	args  json.RawMessage
	files []*os.File

	Ready func(progress json.RawMessage) // told what the half gave to in.Progress; may be nil
}

// Keeper returns h as the keeper of a run. The files are passed in order and stay the caller's.
func (h Half[A, R]) Keeper(args A, files ...*os.File) (*Keeper, error) {
	raw, err := marshal(args)
	if err != nil {
		return nil, fmt.Errorf("%s: arguments: %w", h.Name, err)
	}
	return &Keeper{half: h.Name, args: raw, files: files}, nil
}

// serveKeeper runs the half that start names. Signals from a terminal or a polite kill mean nothing to it.
func serveKeeper(halves []Registered, up *upLink, dec *json.Decoder, start startMessage, files []*os.File) int {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE)
	half, err := find(halves, start.Half)
	if err == nil {
		err = os.Chdir("/") // pin nobody's mount
	}
	if err != nil {
		return answer(up, start.Half, nil, err)
	}
	in := &Inner{
		Files: files[1:],
		WaitRun: func() error {
			if err := mounts.WaitGone(files[:1]); err != nil {
				return err
			}
			var m downMessage
			for dec.Decode(&m) == nil {
			}
			return nil
		},
		report: func(v any) error {
			raw, err := marshal(v)
			if err != nil {
				return err
			}
			return up.send(upMessage{Progress: raw})
		},
	}
	v, err := half.serve(context.Background(), in, start.Args)
	return answer(up, start.Half, v, err)
}
