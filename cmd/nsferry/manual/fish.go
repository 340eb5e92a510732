package manual

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// fish wants one line per word that can be completed, with a condition on each; a function walks the words before the
// cursor to find the command, as in bash.
func fish(b *bytes.Buffer, app *kong.Application) {
	fmt.Fprintf(b, `# fish completion for %[1]s, made by "%[1]s completion fish"
function __%[1]s_at
    set -l at ''
    set -l skip ''
    for word in (commandline -opc)[2..-1]
        if test -n "$skip"
            set skip ''
            continue
        end
        switch "$at $word"
`, app.Name)
	for _, n := range commands(app.Node) {
		for _, c := range visible(n) {
			fmt.Fprintf(b, "            case %s\n                set at %s\n", quote(path(n)+" "+c.Name), quote(path(c)))
		}
		if valued := valuedSpellings(n); len(valued) > 0 {
			fmt.Fprintf(b, "            case %s\n                set skip 1\n", strings.Join(valued, " "))
		}
	}
	b.WriteString("        end\n    end\n    echo \"$at\"\nend\n")
	for _, n := range commands(app.Node) {
		fishNode(b, app.Name, n)
	}
}

func fishNode(b *bytes.Buffer, name string, n *kong.Node) {
	here := fmt.Sprintf(`test "$(__%s_at)" = %s`, name, quote(path(n)))
	for _, c := range visible(n) {
		fmt.Fprintf(b, "complete -c %s -f -n %s -a %s -d %s\n", name, quote(here), quote(c.Name), quote(summary(c.Help)))
	}
	if len(visible(n)) == 0 && len(n.Positional) > 0 {
		if vs := values(n.Positional[0]); vs != nil {
			fmt.Fprintf(b, "complete -c %s -f -n %s -a %s\n", name, quote(here), quote(strings.Join(vs, " ")))
		}
	}
	for _, f := range ownFlags(n) {
		fmt.Fprintf(b, "complete -c %s", name)
		if n.Parent != nil { // global flags are good everywhere
			fmt.Fprintf(b, " -n %s", quote(fmt.Sprintf(`string match -q -- %s "$(__%s_at) "`, quote(path(n)+" *"), name)))
		}
		if f.Short != 0 {
			fmt.Fprintf(b, " -s %c", f.Short)
		}
		fmt.Fprintf(b, " -l %s", f.Name)
		if vs := values(f.Value); vs != nil {
			fmt.Fprintf(b, " -x -a %s", quote(strings.Join(vs, " ")))
		} else if takesValue(f) {
			b.WriteString(" -r")
		}
		fmt.Fprintf(b, " -d %s\n", quote(summary(f.Help)))
	}
}
