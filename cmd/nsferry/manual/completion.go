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
		if valued := valuedSpellings(n); len(valued) > 0 {
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

// valuedSpellings are the flags after n that take the next word as their value, as quoted patterns "PATH FLAG".
func valuedSpellings(n *kong.Node) []string {
	var valued []string
	for _, f := range flags(n) {
		if takesValue(f) {
			for _, s := range spellings(f) {
				valued = append(valued, quote(path(n)+" "+s))
			}
		}
	}
	return valued
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

// quote makes s one word for a POSIX shell, and for fish as far as help texts go.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
