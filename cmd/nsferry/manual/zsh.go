package manual

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// zsh makes one function per command; _arguments does the work.
func zsh(b *bytes.Buffer, app *kong.Application) {
	fmt.Fprintf(b, "#compdef %[1]s\n# zsh completion for %[1]s, made by \"%[1]s completion zsh\"\n", app.Name)
	for _, n := range commands(app.Node) {
		fmt.Fprintf(b, "\n%s() {\n    local curcontext=$curcontext state line ret=1\n    typeset -A opt_args\n    _arguments -C -s -S", zshName(app, n))
		for _, f := range flags(n) {
			fmt.Fprintf(b, " \\\n        %s", zshFlag(f))
		}
		switch {
		case len(visible(n)) > 0:
			fmt.Fprintf(b, " \\\n        '1: :->command' '*:: :->argument' && ret=0\n    case $state in\n    command)\n        local -a commands=(")
			for _, c := range visible(n) {
				fmt.Fprintf(b, " %s", quote(c.Name+":"+summary(c.Help)))
			}
			b.WriteString(" )\n        _describe command commands && ret=0 ;;\n    argument)\n        case $words[1] in\n")
			for _, c := range visible(n) {
				fmt.Fprintf(b, "        %s) %s && ret=0 ;;\n", c.Name, zshName(app, c))
			}
			b.WriteString("        esac ;;\n    esac\n")
		default:
			for i, p := range n.Positional {
				fmt.Fprintf(b, " \\\n        %s", zshPositional(i+1, p))
			}
			b.WriteString(" && ret=0\n")
		}
		b.WriteString("    return ret\n}\n")
	}
	fmt.Fprintf(b, "\nif [[ $funcstack[1] == _%[1]s ]]; then _%[1]s \"$@\"; else compdef _%[1]s %[1]s; fi\n", app.Name)
}

func zshName(app *kong.Application, n *kong.Node) string {
	name := "_" + app.Name
	if p := path(n); p != "" {
		name += "_" + strings.NewReplacer(" ", "_", "-", "_").Replace(p)
	}
	return name
}

func zshFlag(f *kong.Flag) string {
	names := spellings(f)
	value := ""
	if takesValue(f) {
		value = ":" + strings.ToLower(f.Name) + ":" + zshAction(f.Value)
		names[len(names)-1] += "="
		if f.Short != 0 {
			names[0] += "+"
		}
	}
	exclusive := "(" + strings.Join(spellings(f), " ") + ")"
	if f.IsCumulative() {
		exclusive = "*"
	}
	about := quote("[" + zshEscape(summary(f.Help)) + "]" + value)
	if len(names) == 1 {
		return quote(exclusive) + names[0] + about
	}
	return quote(exclusive) + "{" + strings.Join(names, ",") + "}" + about
}

func zshPositional(i int, p *kong.Positional) string {
	at := fmt.Sprint(i)
	if p.IsCumulative() {
		at = "*"
	} else if !p.Required {
		at += ":" // two colons: may be absent
	}
	return quote(at + ":" + zshEscape(p.Name) + ":" + zshAction(p))
}

func zshAction(v *kong.Value) string {
	if vs := values(v); vs != nil {
		return "(" + strings.Join(vs, " ") + ")"
	}
	if v.Passthrough {
		return "_normal"
	}
	return "_files"
}

func zshEscape(s string) string {
	return strings.NewReplacer("[", `\[`, "]", `\]`, ":", `\:`).Replace(s)
}
