package grant

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/handoff"
	"golang.org/x/sys/unix"
)

// store is the directory of records, locked while it is open.
type store struct {
	dir     *os.File
	lock    *os.File
	records []*record
}

// storePath is where records lie.
func storePath() (string, error) {
	base, err := ferry.StateHome()
	if err != nil {
		return "", fmt.Errorf("there is no place for records of grants: %w", err)
	}
	return filepath.Join(base, "grants"), nil
}

// openStore makes the directory, 0700, takes its lock, waiting for it, and reads all records.
func openStore() (s *store, err error) {
	path, err := storePath()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	s = &store{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.Open(path); err != nil {
		return nil, err
	}
	if s.lock, err = os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(s.lock.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, &os.PathError{Op: "flock", Path: s.lock.Name(), Err: err}
	}
	return s, s.load()
}

// close releases the lock with its file.
func (s *store) close() {
	for _, f := range []*os.File{s.dir, s.lock} {
		if f != nil {
			f.Close()
		}
	}
}

// load reads every record. One that cannot be read is an error: it stands for a change that could not be taken back.
func (s *store) load() error {
	names, err := s.dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if !strings.HasSuffix(name, ".json") || strings.HasPrefix(name, ".") {
			continue
		}
		path := filepath.Join(s.dir.Name(), name)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r := &record{}
		if err = json.Unmarshal(text, r); err == nil && r.Version != recordVersion {
			err = fmt.Errorf("version %d, this nsferry knows %d", r.Version, recordVersion)
		}
		if err == nil {
			err = r.eachPath(unquotePath)
		}
		if err != nil {
			return fmt.Errorf("record of a grant %s: %w", path, err)
		}
		s.records = append(s.records, r)
	}
	return nil
}

// eachPath changes every path of the record.
func (r *record) eachPath(f func(string) (string, error)) error {
	path, err := f(r.Path)
	if err != nil {
		return err
	}
	r.Path = path
	for i := range r.Uses {
		if r.Uses[i].For, err = f(r.Uses[i].For); err != nil {
			return err
		}
	}
	return nil
}

// find returns the record of the directory, or nil. A directory that was renamed since keeps its record; one that took
// another's name does not get it.
func (s *store) find(id identity, path string) *record {
	for _, samePath := range []bool{true, false} {
		for _, r := range s.records {
			if (r.Path == path) == samePath && r.ID.same(id, samePath) {
				return r
			}
		}
	}
	return nil
}

// file is the record's name: of device, inode and path.
func (r *record) file() string {
	sum := sha256.Sum256([]byte(r.Path))
	return fmt.Sprintf("%x-%d-%s.json", r.ID.Dev, r.ID.Ino, hex.EncodeToString(sum[:8]))
}

// put writes the record, whole and synced, before what it tells of is done.
func (s *store) put(r *record) error {
	r.Version = recordVersion
	out := *r
	out.Uses = slices.Clone(r.Uses)
	if err := out.eachPath(func(p string) (string, error) { return quotePath(p), nil }); err != nil {
		return err
	}
	text, err := json.MarshalIndent(&out, "", "  ")
	if err != nil {
		return err
	}
	p, err := handoff.NewPending(s.dir, r.file(), handoff.Options{Mode: 0o600, Overwrite: handoff.Replace})
	if err != nil {
		return err
	}
	_, err = p.File().Write(append(text, '\n'))
	if err == nil {
		err = p.Commit()
	}
	if err = errors.Join(err, p.Abort()); err != nil {
		return err
	}
	if !slices.Contains(s.records, r) {
		s.records = append(s.records, r)
	}
	return nil
}

// remove forgets the record.
func (s *store) remove(r *record) error {
	s.records = slices.DeleteFunc(s.records, func(o *record) bool { return o == r })
	err := os.Remove(filepath.Join(s.dir.Name(), r.file()))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
