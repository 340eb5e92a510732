package ferry

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

// debian is a Debian tree as mmdebstrap makes it.
type debian struct {
	name    string
	args    []string
	planted bool // with the oddities in it
}

// TestDebianSoak sends real Debian trees round GNU tar, bsdtar and every mode, model and range. Everyday runs take minbase
// alone, `make soak` also the others.
func TestDebianSoak(t *testing.T) {
	trees := []debian{{"minbase", []string{"--variant=minbase"}, false}}
	if tier.Soaking(true, false) {
		trees = append(trees,
			debian{"standard", []string{"--variant=standard"}, false},
			debian{"services", []string{"--variant=important", "--include=iputils-ping,systemd,postfix,polkitd,python3,locales"}, true})
	}
	for _, d := range trees {
		t.Run(d.name, func(t *testing.T) { d.test(t) })
	}
}

func (d debian) test(t *testing.T) {
	all := usernstest.Ranges(t)
	work := place(t, all[0].Env)
	tree := filepath.Join(work, "tree")
	tarball, err := os.Open(tier.Debian(t, d.name, d.args...))
	check(t, err)
	defer tarball.Close()
	_, err = Unpack(t.Context(), all[0].Env, tarball, tree, UnpackOptions{Exclude: []string{"dev/*"}})
	check(t, err)
	var gnu, bsd []defect
	if d.planted {
		usernstest.Build(t, all[0].Env, filepath.Join(work, "oddities"), noSockets(treetest.Oddities()))
		in(t, all[0], nil, "mv", filepath.Join(work, "oddities"), filepath.Join(tree, "srv", "oddities"))
		gnu, bsd = gnuDefects, bsdDefects
	}
	ours := circle(t, all[0], tree, gnu, bsd)
	t.Logf("%s: %d bytes stored", d.name, len(ours))
	for i, e := range all {
		if i%3 == 2 && !tier.Soaking(true, false) {
			continue // a sample; TestModelsAgree has them all
		}
		t.Run(e.Name, func(t *testing.T) {
			dir := filepath.Join(place(t, e.Env), "tree")
			unpacked(t, e, ours, dir)
			if !bytes.Equal(packed(t, e, dir, 0), ours) {
				t.Error("the archive of the copy is another one")
			}
		})
	}
}
