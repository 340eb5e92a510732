package main

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

// TestPart compares each command of the grammar that is built for it alone with the one in the whole grammar.
func TestPart(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	model := func(args ...string) *kong.Node {
		t.Helper()
		parser, _, err := newParser(args, &Out{Stdout: io.Discard, Stderr: io.Discard}, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		return parser.Model.Node
	}
	find := func(n *kong.Node, words []string) *kong.Node {
		for _, word := range words {
			var next *kong.Node
			for _, kid := range n.Children {
				if kid.Name == word {
					next = kid
				}
			}
			if n = next; n == nil {
				return nil
			}
		}
		return n
	}
	describe := func(n *kong.Node) (lines []string) {
		for _, flags := range n.AllFlags(false) {
			for _, f := range flags {
				lines = append(lines, fmt.Sprint(f.Summary(), " ", f.Default, " ", f.Envs, " ", f.Help))
			}
		}
		for _, p := range n.Positional {
			lines = append(lines, p.Summary()+" "+p.Help)
		}
		return append(lines, n.Help, n.Detail)
	}
	whole := model()
	commands := 0
	for _, leaf := range whole.Leaves(false) {
		words := commandNames(leaf)
		part := model(append([]string{"--json", "--model", "caller", "--mode=root", "-j", "2"}, words...)...)
		if n := find(part, words); n == nil {
			t.Errorf("%q: its part of the grammar does not have it", words)
		} else if d := cmp.Diff(describe(leaf), describe(n)); d != "" {
			t.Errorf("%q: %s", words, d)
		}
		if len(part.Children) != 1 {
			t.Errorf("%q: its part of the grammar has %d commands", words, len(part.Children))
		}
		commands++
	}
	if commands < 30 {
		t.Errorf("%d commands", commands)
	}
	for _, args := range []string{"", "--mode", "--mode run", "--mode root", "--help", "nonsense", "--version", "sstates", "--unknown run"} {
		if n := model(strings.Fields(args)...); len(n.Children) != len(whole.Children) {
			t.Errorf("%q: %d commands, not all", args, len(n.Children))
		}
	}
}
