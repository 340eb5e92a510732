package manual

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

// grammar has one of everything that the project's grammar has: global and own flags, lists of values, subcommands two
// levels deep, a hidden command, positionals, a command line after "--", quotes in help.
type grammar struct {
	Model string `enum:"base,caller" default:"base" env:"FERRY_MODEL" help:"The model: one of ${enum}."`
	Quiet bool   `short:"q" help:"Don't say [anything]."`
	Pack  struct {
		Output string `short:"o" required:"" placeholder:"FILE" help:"Where to."`
		Dir    string `arg:"" help:"The tree."`
	} `cmd:"" help:"Pack a tree. More."`
	Map struct {
		Show     struct{} `cmd:"" help:"Show it."`
		ToInside struct {
			ID uint32 `arg:"" help:"An id."`
		} `cmd:"" help:"Translate."`
	} `cmd:"" help:"Maps."`
	Shell struct {
		Name string `arg:"" enum:"bash,fish" help:"Which."`
	} `cmd:"" help:"Scripts."`
	Run struct {
		Bind    []string `sep:"none" help:"Bind it."`
		Command []string `arg:"" optional:"" passthrough:"" help:"What to run."`
	} `cmd:"" help:"Run it."`
	Secret struct{} `cmd:"" hidden:"" help:"Nobody sees this."`
}

func app(t *testing.T) *kong.Application {
	t.Helper()
	k, err := kong.New(&grammar{}, kong.Name("ferry"), kong.Description("Ferry things."))
	if err != nil {
		t.Fatal(err)
	}
	return k.Model
}

func render(t *testing.T, shell string) string {
	t.Helper()
	var b bytes.Buffer
	if err := Completion(&b, shell, app(t)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "secret") {
		t.Errorf("%s completes a hidden command", shell)
	}
	return b.String()
}

// need returns the path of program, or skips.
func need(t *testing.T, program string) string {
	t.Helper()
	p, err := exec.LookPath(program)
	if err != nil {
		tier.Have(t, false, program)
	}
	return p
}

// completions are what a shell offers for a line, in order; "file" stands for a file of that name in the current
// directory. The last word is the one being completed.
var completions = []struct {
	line string
	want string
}{
	{"ferry m", "map"},
	{"ferry ", "map pack run shell"},
	{"ferry --mod", "--model"},
	{"ferry --model ", "base caller"},
	{"ferry --model c", "caller"},
	{"ferry -q map ", "show to-inside"},
	{"ferry --model base map to", "to-inside"},
	{"ferry map to-inside --q", "--quiet"},
	{"ferry pack --out", "--output"},
	{"ferry pack -o map sh", ""},
	{"ferry pack -o ma", ""},
	{"ferry shell ", "bash fish"},
	{"ferry map show --output", ""},
	{"ferry sec", ""},
}

func TestBash(t *testing.T) {
	script := write(t, "ferry", render(t, "bash"))
	bash := need(t, "bash")
	if out, err := exec.Command(bash, "-n", script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tt := range append(completions, []struct{ line, want string }{
		{"ferry --model = c", "caller"}, // bash splits at "="
		{"ferry --model =", "base caller"},
		{"ferry run -- bas", "bash bashbug"},
	}...) {
		t.Run(tt.line, func(t *testing.T) {
			words := strings.Split(tt.line, " ")
			args := append([]string{"-c", `. "$0"; compgen() { if [[ $1 == -c ]]; then builtin compgen -W "bash bashbug" -- "$3"; else builtin compgen "$@"; fi; }
				COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ferry; printf '%s\n' "${COMPREPLY[@]}" | sort`, script}, words...)
			check(t, tt.want, bash, args...)
		})
	}
}

func TestFish(t *testing.T) {
	script := write(t, "ferry.fish", render(t, "fish"))
	fish := need(t, "fish")
	for _, tt := range append(completions, []struct{ line, want string }{{"ferry --model=c", "--model=caller"}}...) {
		t.Run(tt.line, func(t *testing.T) {
			check(t, tt.want, fish, "--no-config", "-c", `source $argv[1]; cd (mktemp -d); complete -C $argv[2] | string replace -r '\t.*' '' | sort`, script, tt.line)
		})
	}
}

// TestZsh drives a real zsh on a terminal of its own: its completion runs nowhere else.
func TestZsh(t *testing.T) {
	script := write(t, "_ferry", render(t, "zsh"))
	zsh := need(t, "zsh")
	if out, err := exec.Command(zsh, "-n", script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	args := []string{"-f", write(t, "driver.zsh", zshDriver), filepath.Dir(script), t.TempDir()}
	var want []string
	for _, tt := range completions {
		args = append(args, tt.line)
		want = append(want, tt.line+" => "+tt.want)
	}
	cmd := exec.Command(zsh, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C", "TERM=dumb")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if d := cmp.Diff(strings.Join(want, "\n"), strings.TrimSuffix(string(out), "\n")); d != "" {
		t.Errorf("completions (-want +got):\n%s", d)
	}
}

// zshDriver starts an interactive zsh in a pseudo-terminal, types each line and a tab, and prints the words that compadd
// was given and that match: "LINE => WORDS".
const zshDriver = `zmodload zsh/zpty
scripts=$1 work=$2
shift 2
await() {
    local i
    for i in {1..400}; do [[ -s $work/$1 ]] && { rm $work/$1; return; }; sleep 0.03; done
    print "no answer: $1"
    exit 1
}
zpty z zsh -f -i
zpty -w z "PS1=; mkdir $work/empty; cd $work/empty; fpath=($scripts \$fpath); autoload -Uz compinit; compinit -u -D; ferry() { :; }"
zpty -w z 'compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
    local -a found; builtin compadd -A found "$@"; print -l "OFFER"${^found} >>'$work'/offers; builtin compadd "$@"
}
bindkey "^I" complete-word
zstyle ":completion:*" completer _complete
print READY >'$work'/ready'
await ready
sleep 0.3
for line; do
    : >$work/offers
    zpty -w -n z "$line"$'\t'
    zpty -w -n z $'\C-u'"print DONE >$work/done"$'\n'
    await done
    words=(${(f)"$(sed -n 's/=$//; s/^OFFER\(.\)/\1/p' $work/offers | sort -u)"})
    print -r -- "$line => $words"
done
zpty -d z
`

// TestMan lets two formatters judge the page, and looks for everything of the grammar in what a reader sees.
func TestMan(t *testing.T) {
	var b bytes.Buffer
	sections := []Section{{Title: "EXIT STATUS", Items: []Item{{Term: "4", Text: ".No namespace; a\\b 'c' ~."}}}}
	if err := Man(&b, app(t), sections); err != nil {
		t.Fatal(err)
	}
	page := write(t, "ferry.1", b.String())
	if out, err := exec.Command(need(t, "mandoc"), "-T", "lint", "-W", "warning", page).CombinedOutput(); err != nil {
		for l := range strings.Lines(string(out)) {
			if !strings.Contains(l, "missing date") { // the same grammar gives the same bytes
				t.Errorf("mandoc: %s", l)
			}
		}
	}
	cmd := exec.Command(need(t, "groff"), "-man", "-Tascii", "-ww", "-P-cbou", page)
	var warnings bytes.Buffer
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil || warnings.Len() > 0 {
		t.Errorf("groff: %v\n%s", err, &warnings)
	}
	text := string(out)
	for _, want := range []string{
		"ferry - ferry things", "pack --output=FILE <dir>", "map show", "map to-inside <id>", "shell <name>",
		"--model=\"base\"", "-q, --quiet", "-o, --output=FILE", "--bind=BIND", "Don't say [anything].",
		"FERRY_MODEL", "EXIT STATUS", ".No namespace; a\\b 'c' ~.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(text, "secret") {
		t.Error("the page has a hidden command")
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}

func TestUnknownShell(t *testing.T) {
	var b bytes.Buffer
	if err := Completion(&b, "tcsh", app(t)); err == nil || b.Len() > 0 {
		t.Errorf("tcsh: error %v, %d bytes", err, b.Len())
	}
}

func check(t *testing.T, want, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C", "TERM=dumb")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, strings.Join(strings.Fields(string(out)), " ")); d != "" {
		t.Errorf("completions (-want +got):\n%s", d)
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}
