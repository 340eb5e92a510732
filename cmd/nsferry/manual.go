package main

import (
	"github.com/alecthomas/kong"

	"github.com/nsferry/nsferry/cmd/nsferry/manual"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: one of ${enum}."`
}

// Help tells where the script goes.
func (*completionCmd) Help() string {
	return `bash: nsferry completion bash >~/.local/share/bash-completion/completions/nsferry

zsh: nsferry completion zsh >DIR/_nsferry, with DIR in $fpath

fish: nsferry completion fish >~/.config/fish/completions/nsferry.fish`
}

// Run prints the completion script.
func (c *completionCmd) Run(app *kong.Kong, out *Out) error {
	return manual.Completion(out.Stdout, c.Shell, app.Model)
}

type manCmd struct{}

// Run prints the manual page in roff.
func (*manCmd) Run(app *kong.Kong, out *Out) error {
	return manual.Man(out.Stdout, app.Model, manualSections())
}

// manualSections is what the manual page has beyond the grammar.
func manualSections() []manual.Section {
	return []manual.Section{
		{Title: "EXIT STATUS", Items: []manual.Item{
			{Term: "0", Text: "Done."},
			{Term: "1", Text: "Failed. Nothing is left under the name of the output."},
			{Term: "2", Text: "The command line or the configuration is wrong."},
			{Term: "3", Text: "Miss: what was asked for is not in the store."},
			{Term: "4", Text: "The environment lacks something (user namespaces, sub-ids); the message says what root has to do."},
			{Term: "130", Text: "Interrupted by a signal."},
			{Term: "125-127, 128+n, others", Text: "From run: it could not start the command; the command died of signal n; the command's own status."},
		}},
		{Title: "FILES", Items: []manual.Item{
			{Term: "/etc/subuid, /etc/subgid", Text: "The ranges of ids that each user may map. See subuid(5)."},
			{Term: systemConfig, Text: "Flags for everybody: a JSON object with the names of flags as keys, and objects with the flags of a command under the command's name."},
			{Term: "$XDG_CONFIG_HOME/nsferry/config.json", Text: "The same for one user; wins over the one for everybody."},
		}},
		{Title: "SEE ALSO", Items: []manual.Item{
			{Text: "user_namespaces(7), newuidmap(1), subuid(5), mmdebstrap(1), tar(1), zstd(1)"},
		}},
	}
}
