package userns

import (
	"encoding/json"
	"errors"
	"os"

	"github.com/nsferry/nsferry/idshift/userns/mounts"
)

// janitorArgs is what the janitor of a run gets: the run's mounts, and as the first file init's pidfd.
type janitorArgs struct {
	Mounts mountsMessage `json:"mounts"`
}

// tidy starts the janitor of a run, or its keeper, and returns when what the mounts need is in place. The janitor is nil when
// there is nothing for it to do. Otherwise it ends after init does, and the caller must call leave. It works in the handoff
// map: the tree may be the range's, or the caller's own.
func (e *Env) tidy(s Spec, init *child) (*child, error) {
	if s.Keeper == nil && (s.Mounts.Private || s.Mounts.Root == nil && len(s.Mounts.Binds) == 0) {
		return nil, nil
	}
	if init.pidfd < 0 {
		return nil, errors.New("run: this kernel gives no pidfd (Linux 5.4 does)")
	}
	run := os.NewFile(uintptr(init.pidfd), "pidfd of init")
	init.pidfd = -1
	defer run.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	// Nobody must wait for the janitor because it holds his pipe: stderr goes nowhere, errors come as an answer.
	plan := session{role: roleJanitor, name: "janitor", mapping: e.Handoff, stdio: [3]*os.File{null, null, null}, files: []*os.File{run}}
	if k := s.Keeper; k != nil {
		plan.start.Half, plan.start.Args, plan.start.Progress = k.half, k.args, true
		plan.files = append(plan.files, k.files...)
	} else {
		var args janitorArgs
		args.Mounts, plan.files = packMounts(s.Mounts, plan.files)
		if plan.start.Args, err = marshal(args); err != nil {
			return nil, err
		}
	}
	j, err := e.spawn(plan)
	if err != nil {
		return nil, err
	}
	var first upMessage
	if err := j.next(&first); err != nil || first.Progress == nil {
		return nil, j.leave(first)
	}
	if s.Keeper != nil && s.Keeper.Ready != nil {
		s.Keeper.Ready(first.Progress)
	}
	return j, nil
}

// leave waits for the janitor's end and returns its error. Last is what it has said already.
func (c *child) leave(last upMessage) error {
	var err error
	for err == nil && last.Error == nil && last.Result == nil && last.Setup == nil {
		err = c.next(&last)
	}
	status := c.wait()
	switch {
	case last.Error != nil:
		return last.Error
	case last.Setup != nil:
		return &spawnError{step: last.Setup.Step, err: last.Setup.Errno}
	case last.Result == nil:
		return &DiedError{Name: "janitor", Status: status}
	}
	return nil
}

// readyLine tells the outer process that the placeholders are there.
type readyLine struct{ up *upLink }

func (r readyLine) Write(p []byte) (int, error) {
	if err := r.up.send(upMessage{Progress: json.RawMessage("true")}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// serveJanitor first removes what a killed janitor has left in the tree, then makes what this run needs, and removes it
// when the run is gone. Its caller may be gone before.
func serveJanitor(halves []Registered, up *upLink, dec *json.Decoder, start startMessage, files []*os.File) int {
	if start.Half != "" {
		return serveKeeper(halves, up, dec, start, files)
	}
	err := func() error {
		var args janitorArgs
		if err := unmarshal(start.Args, &args); err != nil {
			return err
		}
		if err := os.Chdir("/"); err != nil { // pin nobody's mount
			return err
		}
		s := args.Mounts.unpack(files)
		root := s.Root
		if root == nil {
			var err error
			if root, err = os.Open("/"); err != nil {
				return err
			}
			defer root.Close()
		}
		var targets []string
		for _, b := range s.Binds {
			targets = append(targets, b.Target)
		}
		if _, err := mounts.Sweep(root, targets...); err != nil {
			return err
		}
		list, err := mounts.Plan(s)
		if err != nil || len(list) == 0 {
			return err
		}
		return mounts.Janitor(root, list, readyLine{up}, files[0])
	}()
	return answer(up, "janitor", true, err)
}
