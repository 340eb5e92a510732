package userns

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// innerArg0 is argv[0] of every inner process. Main recognises it by this and by the socket on controlFD.
const innerArg0 = "nsferry-inner"

// controlFD is the inner process's end of the control socket; the files of a session follow it.
const controlFD = 3

// startMessage is the first line down. It is sent once the id maps are written, so its arrival is also the signal to go on.
type startMessage struct {
	Half     string          `json:"half,omitempty"`
	Args     json.RawMessage `json:"args,omitempty"`
	Files    []string        `json:"files,omitempty"`    // names of the passed files, for messages
	Progress bool            `json:"progress,omitempty"` // somebody listens
	UserNS   bool            `json:"userns,omitempty"`   // the process is in a new user namespace and becomes uid 0 first
	Grace    time.Duration   `json:"grace"`              // after end of file, time to clean up
	Outlives bool            `json:"outlives,omitempty"` // end of file means nothing: the process goes on when its caller is gone
	Init     *initMessage    `json:"init,omitempty"`     // serve as pid 1 for a foreign command instead of a half
}

// downMessage is any later line down. End of file means: stop.
type downMessage struct {
	Signal int `json:"signal,omitempty"` // init: a signal that arrived outside
}

// upMessage is one line up; exactly one field is set.
type upMessage struct {
	Progress json.RawMessage `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    *RemoteError    `json:"error,omitempty"`
	Setup    *setupFailure   `json:"setup,omitempty"` // the namespace is not what it has to be
	Exit     *exitMessage    `json:"exit,omitempty"`  // init: the command has ended
	Note     string          `json:"note,omitempty"`  // init: for the user's eyes
}

// setupFailure reports a step of becoming root inside that the kernel refused.
type setupFailure struct {
	Step  string        `json:"step"`
	Errno syscall.Errno `json:"errno"`
}

// upLink is the inner end's writer: whole lines, safe for concurrent use.
type upLink struct {
	mu sync.Mutex
	f  *os.File
}

func (u *upLink) send(m upMessage) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	_, err = u.f.Write(append(line, '\n'))
	return err
}

// isDeadPeer tells whether err means that the other end of a control socket is gone.
func isDeadPeer(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrClosed)
}
