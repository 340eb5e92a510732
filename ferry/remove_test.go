package ferry

import "testing"

// TestRemovable only looks at spellings: a test that called Remove with "/" would trust what it tests.
func TestRemovable(t *testing.T) {
	for _, path := range []string{"", ".", "..", "/", "//", "./", "../", "a/.", "a/..", "a/../", "/a/../..", "/.", "/./"} {
		if removable(path) == nil {
			t.Errorf("%q may be removed", path)
		}
	}
	for _, path := range []string{"a", "a/", "./a", "../a", "/a", "a/../b", "...", ".a", "a.", "-"} {
		if err := removable(path); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}
