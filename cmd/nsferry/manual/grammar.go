// Package manual renders a kong grammar for people and shells: every command and flag that the grammar accepts and does
// not hide appears in the manual page and in the completions, and nothing else does.
package manual

import (
	"strings"

	"github.com/alecthomas/kong"
)

// commands returns n and what is below it, parents first, in the order of the grammar, without hidden ones.
func commands(n *kong.Node) []*kong.Node {
	nodes := []*kong.Node{n}
	for _, c := range visible(n) {
		nodes = append(nodes, commands(c)...)
	}
	return nodes
}

func visible(n *kong.Node) []*kong.Node {
	var nodes []*kong.Node
	for _, c := range n.Children {
		if !c.Hidden {
			nodes = append(nodes, c)
		}
	}
	return nodes
}

// path is the name of n as it is typed, without the application's: "sstate save".
func path(n *kong.Node) string {
	if n.Parent == nil {
		return ""
	}
	return strings.TrimSpace(path(n.Parent) + " " + n.Name)
}

// flags are the visible flags that may be given after n: its own first, then its parents'.
func flags(n *kong.Node) []*kong.Flag {
	var fs []*kong.Flag
	for ; n != nil; n = n.Parent {
		fs = append(fs, ownFlags(n)...)
	}
	return fs
}

func ownFlags(n *kong.Node) []*kong.Flag {
	var fs []*kong.Flag
	for _, f := range n.Flags {
		if !f.Hidden {
			fs = append(fs, f)
		}
	}
	return fs
}

// takesValue says whether a flag is followed by a value.
func takesValue(f *kong.Flag) bool { return !f.IsBool() && !f.IsCounter() }

// spellings are the ways to write a flag: "-j", "--jobs".
func spellings(f *kong.Flag) []string {
	var s []string
	if f.Short != 0 {
		s = append(s, "-"+string(f.Short))
	}
	s = append(s, "--"+f.Name)
	for _, a := range f.Aliases {
		s = append(s, "--"+a)
	}
	return s
}

// values are the only values that v accepts, nil if there are others.
func values(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return v.EnumSlice()
}

// childNames are the subcommands of n.
func childNames(n *kong.Node) []string {
	var names []string
	for _, c := range visible(n) {
		names = append(names, c.Name)
	}
	return names
}

// summary is the first sentence of a help text, without its full stop: what fits beside a completion.
func summary(help string) string {
	first, _, _ := strings.Cut(help, ". ")
	first, _, _ = strings.Cut(first, ": ")
	return strings.TrimSuffix(first, ".")
}
