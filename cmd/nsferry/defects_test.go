package main

import (
	"go/ast"
	"regexp"
	"strings"
	"testing"
)

// TestDefectsAreTested wants each test that docs/DEFECTS.md names, and that each row names one.
func TestDefectsAreTested(t *testing.T) {
	all := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test {
				all[s.dir+": "+f.Name.Name] = true
			}
		}
	}
	doc := read(t, "docs/DEFECTS.md")
	named := regexp.MustCompile("`([a-z/]+: Test[A-Za-z]+)`")
	rows := 0
	for line := range strings.Lines(doc) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what |") {
			continue
		}
		rows++
		tests := named.FindAllStringSubmatch(line, -1)
		if tests == nil {
			t.Errorf("no test: %s", line)
		}
		for _, m := range tests {
			if !all[m[1]] {
				t.Errorf("there is no %s", m[1])
			}
		}
	}
	if rows < 15 {
		t.Errorf("only %d rows", rows)
	}
}
