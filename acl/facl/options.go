package facl

import (
	"fmt"
	"strings"
)

// option is one option of a command, known by a long name, a letter, or both.
type option struct {
	long   string
	letter byte   // 0: none
	valued string // what its value is called in the help; "": it takes none
	help   string
}

// word is one element of a command line: an option with its value, or (with opt nil) a file.
type word struct {
	opt   *option
	value string
}

// scanner goes through a command line as getopt_long(3) does: bundled letters, values attached or in the next argument,
// long names cut short as long as they are unique.
type scanner struct {
	options []option
	args    []string
	letters string // what is left of a bundle
	files   bool   // behind "--"
}

// scanError is a word that the grammar does not have; its text is getopt's.
type scanError string

func (e scanError) Error() string { return string(e) }

// next returns the next word; ok is false at the end.
func (s *scanner) next() (w word, ok bool, err error) {
	if s.letters != "" {
		w, err = s.letter()
		return w, true, err
	}
	if len(s.args) == 0 {
		return word{}, false, nil
	}
	arg := s.args[0]
	s.args = s.args[1:]
	switch {
	case s.files || len(arg) < 2 || arg[0] != '-':
		return word{value: arg}, true, nil
	case arg == "--":
		s.files = true
		return s.next()
	case arg[1] == '-':
		w, err = s.long(arg)
		return w, true, err
	}
	s.letters = arg[1:]
	w, err = s.letter()
	return w, true, err
}

// letter takes one letter off the bundle, and its value.
func (s *scanner) letter() (word, error) {
	c := s.letters[0]
	s.letters = s.letters[1:]
	for i := range s.options {
		o := &s.options[i]
		if o.letter != c {
			continue
		}
		if o.valued == "" {
			return word{opt: o}, nil
		}
		value := s.letters
		s.letters = ""
		if value == "" {
			if len(s.args) == 0 {
				return word{}, scanError(fmt.Sprintf("option requires an argument -- '%c'", c))
			}
			value, s.args = s.args[0], s.args[1:]
		}
		return word{opt: o, value: value}, nil
	}
	return word{}, scanError(fmt.Sprintf("invalid option -- '%c'", c))
}

// long reads --name, --name=value, or --name value.
func (s *scanner) long(arg string) (word, error) {
	name, value, attached := strings.Cut(arg[2:], "=")
	o, err := s.named(name)
	if err != nil {
		return word{}, err
	}
	switch {
	case o.valued == "" && attached:
		return word{}, scanError(fmt.Sprintf("option '--%s' doesn't allow an argument", o.long))
	case o.valued != "" && !attached:
		if len(s.args) == 0 {
			return word{}, scanError(fmt.Sprintf("option '--%s' requires an argument", o.long))
		}
		value, s.args = s.args[0], s.args[1:]
	}
	return word{opt: o, value: value}, nil
}

// named finds the option that a long name, or the beginning of one, means.
func (s *scanner) named(name string) (*option, error) {
	var found []*option
	for i := range s.options {
		o := &s.options[i]
		if o.long == name && name != "" {
			return o, nil
		}
		if o.long != "" && strings.HasPrefix(o.long, name) {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return nil, scanError(fmt.Sprintf("unrecognized option '--%s'", name))
	case 1:
		return found[0], nil
	}
	text := fmt.Sprintf("option '--%s' is ambiguous; possibilities:", name)
	for _, o := range found {
		text += " '--" + o.long + "'"
	}
	return nil, scanError(text)
}

// usageText is the description of a command's options, one a line.
func usageText(options []option) string {
	var b strings.Builder
	for _, o := range options {
		letter := "    "
		if o.letter != 0 {
			letter = fmt.Sprintf("-%c, ", o.letter)
		}
		long := "--" + o.long
		if o.valued != "" {
			long += "=" + o.valued
		}
		fmt.Fprintf(&b, "  %s%-22s %s\n", letter, long, o.help)
	}
	return b.String()
}

// SetHelp describes Set's options, one a line.
func SetHelp() string { return usageText(setOptions()) }

// GetHelp describes Get's options, one a line.
func GetHelp() string { return usageText(getOptions()) }
