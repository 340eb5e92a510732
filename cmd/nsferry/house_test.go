package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	modulePath = "github.com/nsferry/nsferry"
	moduleRoot = "../.."
	maxLines   = 400
)

// layers is the one order of the project's packages: each may import those of later lines only. A new package gets a
// place here first.
var layers = [][]string{
	{"cmd/nsferry"},
	{"cmd/nsferry/manual"}, // knows the grammar library and nothing of ours
	{"sstate"},
	{"sstate/store", "sstate/remote", "sstate/debs", "sstate/minisign"},
	{"sstate/lock"},
	{"ownership"},
	{"deploy"},
	{"audit"},
	{"grant"},
	{"ephemeral"},
	{"ferry"},
	{"idshift/userns/usernstest"},
	{"archive", "idshift/userns", "idshift/handoff"},
	{"idshift/userns/mounts"},
	{"archive/treetest"},
	{"archive/zframe/toc", "archive/sbuild"},
	{"archive/tree", "archive/tarfmt", "archive/zframe", "archive/listing", "archive/statindex", "idshift"},
	{"acl/facl"}, // setfacl's and getfacl's operations; ids are its caller's business
	{"acl"},
	{"tier"},
}

// forTests are the packages that only tests and they themselves may import.
var forTests = []string{"archive/treetest", "idshift/userns/usernstest", "tier"}

// source is a parsed Go file; dir and name are relative to the module's root, with slashes.
type source struct {
	dir, name string
	lines     int
	test      bool
	ast       *ast.File
}

// sources parses every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(moduleRoot, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if p != moduleRoot && (strings.HasPrefix(base, ".") || base == "testdata" || base == "build") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(moduleRoot, p)
		if err != nil {
			return err
		}
		all = append(all, source{
			dir:   filepath.ToSlash(filepath.Dir(rel)),
			name:  filepath.ToSlash(rel),
			lines: fset.File(f.FileStart).LineCount(),
			test:  strings.HasSuffix(base, "_test.go"),
			ast:   f,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 5 {
		t.Fatalf("found only %d Go files under %s", len(all), moduleRoot)
	}
	return all
}

func (s source) imports() []string {
	var paths []string
	for _, i := range s.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			panic(err) // the parser has accepted it
		}
		paths = append(paths, p)
	}
	return paths
}

func layer(dir string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, dir) })
}

// TestHouseImports holds the direction of imports, and the imports that nobody may have.
func TestHouseImports(t *testing.T) {
	for _, s := range sources(t) {
		from := layer(s.dir)
		if from < 0 {
			t.Errorf("%s: package %s has no place in the table of layers", s.name, s.dir)
			continue
		}
		for _, imp := range s.imports() {
			if imp == "C" {
				t.Errorf("%s: cgo", s.name)
			}
			if s.test {
				continue
			}
			if imp == "archive/tar" {
				t.Errorf("%s: archive/tar cannot write sparse files and hides holes; only tests may use it", s.name)
			}
			dir, ours := strings.CutPrefix(imp, modulePath+"/")
			if ours && layer(dir) <= from {
				t.Errorf("%s: %s may not import %s", s.name, s.dir, dir)
			}
			if slices.Contains(forTests, dir) && !slices.Contains(forTests, s.dir) {
				t.Errorf("%s: %s is for tests only", s.name, dir)
			}
		}
	}
}

// TestHousePackages demands a doc for every package, and a name that says what it is.
func TestHousePackages(t *testing.T) {
	banned := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "types", "internal", "lib", "base"}
	documented := map[string]bool{}
	for _, s := range sources(t) {
		for part := range strings.SplitSeq(s.dir, "/") {
			if slices.Contains(banned, part) {
				t.Errorf("%s: %q says nothing about what the package is", s.name, part)
			}
		}
		if slices.Contains(banned, strings.TrimSuffix(path.Base(s.name), ".go")) {
			t.Errorf("%s: the name says nothing about what is in it", s.name)
		}
		if s.test {
			continue
		}
		doc := s.ast.Doc.Text()
		if doc != "" && documented[s.dir] {
			t.Errorf("%s: package %s is documented twice", s.name, s.dir)
		}
		documented[s.dir] = documented[s.dir] || doc != ""
		want := "Package " + s.ast.Name.Name + " "
		if s.ast.Name.Name == "main" {
			want = "Command "
		}
		if doc != "" && !strings.HasPrefix(doc, want) {
			t.Errorf("%s: the package doc does not start with %q", s.name, want)
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no doc", dir)
		}
	}
}

// TestHouseFiles holds what is true of every file: short, finished, and without work at start-up.
func TestHouseFiles(t *testing.T) {
	unfinished := regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	for _, s := range sources(t) {
		if s.lines > maxLines {
			t.Errorf("%s: %d lines, more than %d", s.name, s.lines, maxLines)
		}
		for _, g := range s.ast.Comments {
			if m := unfinished.FindString(g.Text()); m != "" {
				t.Errorf("%s: a comment says %s", s.name, m)
			}
		}
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: has an init function", s.name)
			}
		}
	}
}

// TestHouseDependencies demands that ARCHITECTURE.md gives a reason for every module that is imported.
func TestHouseDependencies(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	var modules []string
	for _, m := range regexp.MustCompile(`(?m)^(?:require )?\s*([a-z0-9.]+\.[a-z]+/\S+) v\S+`).FindAllStringSubmatch(read(t, "go.mod"), -1) {
		modules = append(modules, m[1])
	}
	used := map[string]string{}
	for _, s := range sources(t) {
		for _, imp := range s.imports() {
			if strings.HasPrefix(imp, modulePath) || !strings.Contains(strings.Split(imp, "/")[0], ".") {
				continue
			}
			i := slices.IndexFunc(modules, func(m string) bool { return imp == m || strings.HasPrefix(imp, m+"/") })
			if i < 0 {
				t.Errorf("%s: %s is in no module of go.mod", s.name, imp)
				continue
			}
			used[modules[i]] = s.name
		}
	}
	for m, where := range used {
		if !strings.Contains(text, "`"+m+"`") {
			t.Errorf("%s uses %s, and ARCHITECTURE.md gives no reason for it", where, m)
		}
	}
}

// TestHouseReadme holds the promise of two commands: what README tells to type exists.
func TestHouseReadme(t *testing.T) {
	readme, makefile := read(t, "README.md"), read(t, "Makefile")
	for _, target := range []string{"demo", "test", "e2e"} {
		if !regexp.MustCompile(`(?m)^    make ` + target + `\b`).MatchString(readme) {
			t.Errorf("README.md does not show make %s", target)
		}
	}
	for _, m := range regexp.MustCompile("(?m)(?:^    |`)make ([a-z0-9-]+)").FindAllStringSubmatch(readme, -1) {
		if !regexp.MustCompile(`(?m)^([a-z0-9-]+ )*` + m[1] + `( [a-z0-9-]+)*:`).MatchString(makefile) {
			t.Errorf("README.md mentions make %s, which the Makefile does not have", m[1])
		}
	}
	if n := strings.Count(makefile, "\n"); n > 40 {
		t.Errorf("Makefile: %d lines, more than 40", n)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(moduleRoot, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
