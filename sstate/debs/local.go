package debs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// localRepos are the packages of repositories that a build makes itself. What comes from there is not worth caching, and
// would go stale in a cache: the same version is built again with other contents.
type localRepos struct {
	files map[Package][]string // by the package as a pool names it

	mu   sync.Mutex
	sums map[string]Sum // of those that have been read
}

// findLocal looks for debs below the directories. Only names are read.
func findLocal(dirs []string) (*localRepos, error) {
	l := &localRepos{files: map[Package][]string{}, sums: map[string]Sum{}}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".deb") {
				return err
			}
			if p, err := ParseName(d.Name()); err == nil {
				l.files[p.pool()] = append(l.files[p.pool()], path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// maybe tells whether a local repository has a package of that name, version and architecture, in a file of that size.
func (l *localRepos) maybe(p Package, size int64) bool {
	return slices.ContainsFunc(l.files[p.pool()], func(path string) bool {
		st, err := os.Stat(path)
		return err == nil && st.Size() == size || err != nil && !errors.Is(err, fs.ErrNotExist) // has tells what is wrong
	})
}

// has tells whether it also has that content.
func (l *localRepos) has(p Package, got Sum) (bool, error) {
	for _, path := range l.files[p.pool()] {
		s, err := l.sum(path)
		if errors.Is(err, fs.ErrNotExist) { // the repository has been built again meanwhile
			continue
		}
		if err != nil {
			return false, err
		}
		if s == got {
			return true, nil
		}
	}
	return false, nil
}

func (l *localRepos) sum(path string) (Sum, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, ok := l.sums[path]; ok {
		return s, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return Sum{}, err
	}
	defer f.Close()
	s, err := digest(f, make([]byte, bufSize))
	if err == nil {
		l.sums[path] = s
	}
	return s, err
}
