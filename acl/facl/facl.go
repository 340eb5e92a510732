// Package facl is setfacl(1) and getfacl(1) as functions: operations on ACLs as values, and trees walked by descriptor, so
// that what is read and what is changed is always one and the same inode.
//
// Command lines, texts and messages are those of the acl package's programs; docs/ACL.md lists where they differ and why.
// No symlink is followed but those that the command line asks for, and nothing is looked up but through Names and IDs.
package facl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Exit statuses, those of the acl package's programs.
const (
	statusDone   = 0
	statusFailed = 1
	statusUsage  = 2
	// statusDenied is a visitor's, see there.
	statusDenied = -1
)

// Names knows the accounts. The second result tells whether there is such an account.
type Names interface {
	UserID(name string) (uint32, bool)
	GroupID(name string) (uint32, bool)
	UserName(id uint32) (string, bool)
	GroupName(id uint32) (string, bool)
}

// IDs translates between the ids of the process, which the kernel takes and shows, and those of texts. Both return false
// for an id without an image.
type IDs interface {
	ToText(group bool, id uint32) (uint32, bool)
	ToProcess(group bool, id uint32) (uint32, bool)
}

// same is the IDs of texts with the ids of the process.
type same struct{}

func (same) ToText(_ bool, id uint32) (uint32, bool)    { return id, true }
func (same) ToProcess(_ bool, id uint32) (uint32, bool) { return id, true }

// IO is what a call works with. The caller keeps all of it.
type IO struct {
	Program string // what messages begin with: "nsferry"
	Command string // what the usage text calls the command: "nsferry acl set"
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Dir     *os.File // relative names start here; nil is the working directory
	Names   Names
	IDs     IDs // nil: texts have the ids of the process
	// Inside gives the IDs for --inside. It is called at most once, and only where the command line has the option.
	Inside func() (IDs, error)
	// Terminal aligns comments to a column, as getfacl does where it writes to a terminal.
	Terminal bool
	// Denied, when not nil, is called for what the process has no right to: name in the directory at or, where at is nil,
	// the path itself, relative to Dir. It returns the exit status of whoever has done the job; false if nobody could.
	Denied func(at *os.File, name string, j Job) (int, bool)
}

// session is one call.
type session struct {
	IO
	ids    IDs
	walk   walkMode
	listed bool        // of a job: the top has been dealt with
	lines  *lineReader // of Stdin, made when first needed and shared by all options that read it
	job    func() Job  // what is to be done about a file, for Denied
	// restoring is the part of a backup that is being worked on.
	restoring *block
}

func newSession(e IO) *session {
	s := &session{IO: e, ids: e.IDs}
	if s.ids == nil {
		s.ids = same{}
	}
	return s
}

// inside switches to the inner ids.
func (s *session) inside() error {
	if s.Inside == nil {
		return errors.New("there is no map for --inside")
	}
	ids, err := s.Inside()
	if err != nil {
		return err
	}
	s.ids = ids
	return nil
}

// dirfd returns what relative names are relative to.
func (s *session) dirfd() int {
	if s.Dir == nil {
		return unix.AT_FDCWD
	}
	return int(s.Dir.Fd())
}

// say prints one message.
func (s *session) say(format string, args ...any) {
	fmt.Fprintf(s.Stderr, "%s: %s\n", s.Program, fmt.Sprintf(format, args...))
}

// fail reports that something about a file went wrong and returns the status for it.
func (s *session) fail(path string, err error) int {
	s.say("%s: %s", quote(path, "\n\r"), reason(err))
	return statusFailed
}

// usage prints the usage text and returns the status for it.
func (s *session) usage(synopsis string) int {
	fmt.Fprintf(s.Stderr, "Usage: %s %s\nTry `%s --help' for more information.\n", s.Command, synopsis, s.Command)
	return statusUsage
}

// reason words an error as strerror(3) does: Go has the same words, beginning with a small letter.
func reason(err error) string {
	text := err.Error()
	var errno unix.Errno
	if errors.As(err, &errno) {
		text = errno.Error()
		if errno == unix.EOPNOTSUPP {
			text = "operation not supported"
		}
	}
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// input opens a file that an option names, "-" being standard input, and names it for messages.
func (s *session) input(path string) (r *lineReader, name string, done func(), err error) {
	if path == "-" {
		if s.lines == nil {
			s.lines = newLineReader(s.Stdin)
		}
		return s.lines, "standard input", func() {}, nil
	}
	fd, err := openat(s.dirfd(), path, unix.O_RDONLY)
	if err != nil {
		return nil, "", nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	return newLineReader(f), path, func() { f.Close() }, nil
}
