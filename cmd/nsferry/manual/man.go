package manual

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Section is a part of the manual page that the grammar does not hold.
type Section struct {
	Title string
	Items []Item
}

// Item is a paragraph, with a term if it explains one.
type Item struct{ Term, Text string }

// Man writes the manual page of app in roff, man(7) macros, with sections at its end. The same grammar gives the same
// bytes.
func Man(w io.Writer, app *kong.Application, sections []Section) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH %s 1\n.SH NAME\n%s \\- %s\n", strings.ToUpper(app.Name), app.Name, lowerFirst(roff(summary(app.Help))))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.RI [ flags ]\n.I command\n.RI [ argument ...]\n", app.Name)
	paragraphs(&b, ".SH DESCRIPTION\n", app.Help, app.Detail)
	b.WriteString(".SH COMMANDS\n")
	for _, n := range commands(app.Node) {
		if len(visible(n)) == 0 {
			manCommand(&b, n)
		}
	}
	b.WriteString(".SH GLOBAL FLAGS\n")
	manFlags(&b, ownFlags(app.Node))
	manEnvironment(&b, app)
	for _, s := range sections {
		fmt.Fprintf(&b, ".SH %s\n", roff(s.Title))
		for i, it := range s.Items {
			if it.Term == "" {
				if i > 0 {
					b.WriteString(".PP\n")
				}
				fmt.Fprintf(&b, "%s\n", roff(it.Text))
				continue
			}
			fmt.Fprintf(&b, ".TP\n.B \"%s\"\n%s\n", roffArgument(it.Term), roff(it.Text))
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func manCommand(b *bytes.Buffer, n *kong.Node) {
	usage := path(n)
	for _, f := range flags(n) {
		if f.Required {
			usage += " " + f.Summary()
		}
	}
	for _, p := range n.Positional {
		usage += " " + p.Summary()
	}
	paragraphs(b, fmt.Sprintf(".SS \"%s\"\n", roffArgument(usage)), n.Help, n.Detail)
	for _, p := range n.Positional {
		if p.Help != "" {
			fmt.Fprintf(b, ".TP\n.I \"%s\"\n%s\n", roffArgument(p.Name), roff(p.Help))
		}
	}
	for p := n; p.Parent != nil; p = p.Parent {
		manFlags(b, ownFlags(p))
	}
}

func manFlags(b *bytes.Buffer, fs []*kong.Flag) {
	for _, f := range fs {
		term := strings.Join(spellings(f), ", ")
		if takesValue(f) {
			term += "=" + f.FormatPlaceHolder()
		}
		fmt.Fprintf(b, ".TP\n.B \"%s\"\n%s\n", roffArgument(term), roff(f.Help))
	}
}

func manEnvironment(b *bytes.Buffer, app *kong.Application) {
	title := ".SH ENVIRONMENT\n"
	for _, n := range commands(app.Node) {
		for _, f := range ownFlags(n) {
			for _, env := range f.Envs {
				command := strings.TrimSpace(app.Name + " " + path(n))
				fmt.Fprintf(b, "%s.TP\n.B \"%s\"\n%s\n", title, roffArgument(env),
					roff(fmt.Sprintf("The value of --%s, if %s is not given that flag.", f.Name, command)))
				title = ""
			}
		}
	}
}

// paragraphs writes texts, of which an empty line separates paragraphs, under a heading, which begins the first one.
func paragraphs(b *bytes.Buffer, heading string, texts ...string) {
	b.WriteString(heading)
	separator := ""
	for p := range strings.SplitSeq(strings.Join(texts, "\n\n"), "\n\n") {
		if p = strings.TrimSpace(p); p != "" {
			fmt.Fprintf(b, "%s%s\n", separator, roff(p))
			separator = ".PP\n"
		}
	}
}

// roff escapes text (groff_char(7)); a line must not start with a control character.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

// roffArgument escapes text for a macro argument in double quotes.
func roffArgument(s string) string { return strings.ReplaceAll(roff(s), `"`, `\(dq`) }

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
