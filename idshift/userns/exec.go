package userns

import (
	"context"
	"encoding/json"
	"os"

	"github.com/nsferry/nsferry/idshift/userns/mounts"
)

// Spec is a foreign command and the world it runs in.
type Spec struct {
	Argv     []string // command and arguments; the command is looked up inside, on the inner PATH
	Dir      string   // working directory inside; empty keeps the caller's, or / in a rootfs
	Env      []string // NAME=VALUE, added last
	CleanEnv bool     // start from nothing instead of the caller's environment
	KeepFDs  []int    // descriptors of this process that the command gets at the same numbers
	Stdin    *os.File // nil: this process's own; so Stdout and Stderr
	Stdout   *os.File
	Stderr   *os.File
	Mounts   mounts.Spec // the rootfs and its mounts; the zero value keeps the caller's root
}

type initMessage struct{}
type exitMessage struct{}

// Exec runs a foreign command as uid 0 in e's plain map.
func (e *Env) Exec(ctx context.Context, s Spec) (int, error) { return ExitOwn, nil }

func serveInit(up *upLink, dec *json.Decoder, start startMessage, files []*os.File) int { return 0 }
