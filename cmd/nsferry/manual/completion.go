package manual

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Completion writes the completion script for shell: bash, zsh or fish. The script is static: pressing tab starts no
// process. Where neither a command, a flag nor one of a list of values is due, the shell completes file names; after
// "--" it completes a command line.
func Completion(w io.Writer, shell string, app *kong.Application) error {
	var b bytes.Buffer
	switch shell {
	case "bash":
		bash(&b, app)
	case "zsh":
		zsh(&b, app)
	case "fish":
		fish(&b, app)
	default:
		return fmt.Errorf("no completion for the shell %q", shell)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// bash walks the words before the cursor to find the command, then offers what a table knows about it. "=" is a word
// of its own there (COMP_WORDBREAKS).
func bash(b *bytes.Buffer, app *kong.Application) {
	fmt.Fprintf(b, `# bash completion for %[1]s, made by "%[1]s completion bash"
_%[1]s() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at='' skip='' words='' i word
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == '=' ]]; then skip=1; continue; fi
        if [[ $skip ]]; then skip=''; continue; fi
        if [[ $word == -- ]]; then
            if declare -F _command_offset >/dev/null; then _command_offset $((i + 1)); else COMPREPLY=($(compgen -c -- "$cur")); fi
            return
        fi
        case "$at $word" in
`, app.Name)
	for _, n := range commands(app.Node) {
		for _, c := range visible(n) {
			fmt.Fprintf(b, "            %s) at=%s ;;\n", quote(path(n)+" "+c.Name), quote(path(c)))
		}
		var valued []string
		for _, f := range flags(n) {
			if takesValue(f) {
				for _, s := range spellings(f) {
					valued = append(valued, quote(path(n)+" "+s))
				}
			}
		}
		if len(valued) > 0 {
			fmt.Fprintf(b, "            %s) skip=1 ;;\n", strings.Join(valued, " | "))
		}
	}
	b.WriteString(`        esac
    done
    if [[ $cur == '=' ]]; then cur=''; elif [[ $prev == '=' ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
    if [[ $skip ]]; then
        case "$at $prev" in
`)
	for _, n := range commands(app.Node) {
		for _, f := range flags(n) {
			if vs := values(f.Value); vs != nil {
				for _, s := range spellings(f) {
					fmt.Fprintf(b, "            %s) words=%s ;;\n", quote(path(n)+" "+s), quote(strings.Join(vs, " ")))
				}
			}
		}
	}
	b.WriteString(`        esac
    else
        case "$at" in
`)
	for _, n := range commands(app.Node) {
		fmt.Fprintf(b, "            %s) if [[ $cur == -* ]]; then words=%s; else words=%s; fi ;;\n",
			quote(path(n)), quote(strings.Join(allSpellings(n), " ")), quote(strings.Join(nextWords(n), " ")))
	}
	fmt.Fprintf(b, `        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _%[1]s %[1]s
`, app.Name)
}

func allSpellings(n *kong.Node) []string {
	var all []string
	for _, f := range flags(n) {
		all = append(all, spellings(f)...)
	}
	return all
}

// nextWords are the words that may follow n: subcommands, or the values of its first argument.
func nextWords(n *kong.Node) []string {
	words := childNames(n)
	if len(n.Positional) > 0 {
		words = append(words, values(n.Positional[0])...)
	}
	return words
}

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

// fish wants one line per word that can be completed, and a condition on each.
func fish(b *bytes.Buffer, app *kong.Application) {
	fmt.Fprintf(b, "# fish completion for %[1]s, made by \"%[1]s completion fish\"\n", app.Name)
	for _, n := range commands(app.Node) {
		when := fishCondition(n)
		for _, c := range visible(n) {
			fmt.Fprintf(b, "complete -c %s -f -n %s -a %s -d %s\n", app.Name, quote(when), quote(c.Name), quote(summary(c.Help)))
		}
		if len(n.Positional) > 0 && len(visible(n)) == 0 {
			if vs := values(n.Positional[0]); vs != nil {
				fmt.Fprintf(b, "complete -c %s -f -n %s -a %s\n", app.Name, quote(when), quote(strings.Join(vs, " ")))
			}
		}
		if n.Parent == nil {
			when = "" // global flags are good everywhere
		}
		for _, f := range ownFlags(n) {
			fmt.Fprintf(b, "complete -c %s", app.Name)
			if when != "" {
				fmt.Fprintf(b, " -n %s", quote(fishIn(n)))
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
}

// fishCondition is true where a subcommand or the first argument of n is due.
func fishCondition(n *kong.Node) string {
	if n.Parent == nil {
		return "__fish_use_subcommand"
	}
	cond := fishIn(n)
	if names := childNames(n); len(names) > 0 {
		cond += "; and not __fish_seen_subcommand_from " + strings.Join(names, " ")
	}
	return cond
}

// fishIn is true where n is the command that is being typed, or one of its parents.
func fishIn(n *kong.Node) string {
	var conds []string
	for ; n.Parent != nil; n = n.Parent {
		conds = append([]string{"__fish_seen_subcommand_from " + n.Name}, conds...)
	}
	return strings.Join(conds, "; and ")
}

// quote makes s one word for a POSIX shell, and for fish as far as help texts go.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
