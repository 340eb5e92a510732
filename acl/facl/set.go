package facl

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/acl"
)

const setSynopsis = "[-bkndRLP] { -m|-M|-x|-X ... } file ..."

// setOptions is the grammar of Set.
func setOptions() []option {
	return []option{
		{"modify", 'm', "acl", "modify the current ACL(s) of file(s)"},
		{"modify-file", 'M', "file", "read ACL entries to modify from file"},
		{"remove", 'x', "acl", "remove entries from the ACL(s) of file(s)"},
		{"remove-file", 'X', "file", "read ACL entries to remove from file"},
		{"remove-all", 'b', "", "remove all extended ACL entries"},
		{"remove-default", 'k', "", "remove the default ACL"},
		{"set", 0, "acl", "set the ACL of file(s), replacing the current ACL"},
		{"set-file", 0, "file", "read ACL entries to set from file"},
		{"mask", 0, "", "do recalculate the effective rights mask"},
		{"no-mask", 'n', "", "don't recalculate the effective rights mask"},
		{"default", 'd', "", "operations apply to the default ACL"},
		{"recursive", 'R', "", "recurse into subdirectories"},
		{"logical", 'L', "", "logical walk, follow symbolic links"},
		{"physical", 'P', "", "physical walk, do not follow symbolic links"},
		{"restore", 0, "file", "restore ACLs (inverse of `getfacl -R')"},
		{"test", 0, "", "test mode (ACLs are not modified)"},
		{"inside", 0, "", "texts have the ids of the inside of the namespace"},
		{"help", 'h', "", "this help text"},
	}
}

// setter is one call of Set.
type setter struct {
	*session
	changes []change
	rule    maskRule
	promote bool
	test    bool
	files   bool // a file has been dealt with since the last option
	status  int
}

// errUsage ends a call with the usage text, errReported one that has said what is wrong.
var (
	errUsage    = errors.New("usage")
	errReported = errors.New("reported")
	errHelp     = errors.New("help")
)

// Set does what setfacl(1) does with args, and returns its exit status: 0 done, 1 something failed, 2 usage. The words
// are worked off in their order; an option behind a file begins a new list of operations.
func Set(args []string, e IO) int {
	s := &setter{session: newSession(e)}
	s.job = func() Job { return Job{Set: &setJob{slices.Clone(s.changes), s.rule, s.test}} }
	sc := &scanner{options: setOptions(), args: args}
	for {
		w, ok, err := sc.next()
		switch {
		case err != nil:
			return s.usage(setSynopsis)
		case !ok && s.files:
			return s.status
		case !ok:
			return s.usage(setSynopsis)
		case w.opt == nil:
			err = s.argument(w.value)
		default:
			err = s.option(w)
		}
		switch {
		case errors.Is(err, errUsage):
			return s.usage(setSynopsis)
		case errors.Is(err, errHelp):
			fmt.Fprintf(s.Stdout, "Usage: %s %s\n%s", s.Command, setSynopsis, usageText(setOptions()))
			return statusDone
		case err != nil:
			return statusUsage
		}
	}
}

// option takes note of one option, or does what it says. What went wrong has been said already.
func (s *setter) option(w word) error {
	if s.files {
		s.changes, s.files = nil, false
	}
	switch w.opt.long {
	case "remove-all":
		s.changes = append(s.changes, change{Do: dropExtended}, change{Do: dropAll, Kind: acl.Default})
	case "remove-default":
		s.changes = append(s.changes, change{Do: dropAll, Kind: acl.Default})
	case "modify", "remove", "set":
		return s.fromText(w)
	case "modify-file", "remove-file", "set-file":
		return s.fromFile(w)
	case "mask":
		s.rule = maskAlways
	case "no-mask":
		s.rule = maskNever
	case "default":
		s.promote = true
	case "restore":
		s.files = true
		return s.restore(w.value)
	case "test":
		s.test = true
	case "inside":
		if err := s.inside(); err != nil {
			s.say("%v", err)
			return errReported
		}
	case "help":
		return errHelp
	default:
		s.walk.option(w.opt.long)
	}
	return nil
}

// parser returns a parser for the text of an option.
func (s *setter) parser(w word, text string) *entryParser {
	return &entryParser{s: s.session, text: text, remove: strings.HasPrefix(w.opt.long, "remove"), promote: s.promote}
}

// add appends the entries of one option. Those of --set come after the removal of every ACL that they are of.
func (s *setter) add(w word, entries []change) {
	if strings.HasPrefix(w.opt.long, "set") {
		for _, kind := range []acl.Kind{acl.Access, acl.Default} {
			for _, c := range entries {
				if c.Kind == kind {
					s.changes = append(s.changes, change{Do: dropAll, Kind: kind})
					break
				}
			}
		}
	}
	s.changes = append(s.changes, entries...)
}

// fromText reads -m, -x and --set.
func (s *setter) fromText(w word) error {
	letter := w.opt.letter
	if letter == 0 {
		letter = 's'
	}
	entries, err := s.parser(w, w.value).list()
	var bad *entryError
	switch {
	case err == nil:
		s.add(w, entries)
		return nil
	case errors.As(err, &bad) && bad.at >= len(w.value):
		s.say("Option -%c incomplete", letter)
	case errors.As(err, &bad):
		s.say("Option -%c: %v near character %d", letter, err, bad.at+1)
	}
	return errReported
}

// fromFile reads -M, -X and --set-file: one entry a line, comments, blank lines.
func (s *setter) fromFile(w word) error {
	in, name, done, err := s.input(w.value)
	if err != nil {
		s.fail(w.value, err)
		return errReported
	}
	defer done()
	var entries []change
	in.n = 0
	for {
		line, err := in.next()
		if errors.Is(err, io.EOF) {
			s.add(w, entries)
			return nil
		}
		if err == nil {
			entries, err = s.parser(w, line).line(entries)
		}
		if err != nil {
			if w.value != "-" {
				name = "file " + name
			}
			s.say("%s in line %d of %s", reason(err), in.n, name)
			return errReported
		}
	}
}

// line appends the entry of one line of a file, which may also have none.
func (p *entryParser) line(entries []change) ([]change, error) {
	p.skipBlanks()
	if p.at == len(p.text) || p.text[p.at] == '#' {
		return entries, nil
	}
	c, err := p.entry()
	if err != nil {
		return nil, err
	}
	p.skipBlanks()
	if p.at < len(p.text) && p.text[p.at] != '#' {
		return nil, p.bad(p.at, "")
	}
	return append(entries, c), nil
}

// argument deals with a file, or with the files that standard input names.
func (s *setter) argument(path string) error {
	if len(s.changes) == 0 {
		return errUsage
	}
	s.files = true
	s.each(path, func(path string) int {
		s.status = max(s.status, s.tree(path, s.visit))
		return s.status
	})
	return nil
}

// each calls do with the argument, or, when it is "-", with every line of standard input.
func (s *session) each(path string, do func(path string) int) int {
	if path != "-" {
		return do(path)
	}
	in, name, _, err := s.input("-")
	status := statusDone
	for err == nil {
		if path, err = in.next(); err == nil {
			status = max(status, do(path))
		}
	}
	if !errors.Is(err, io.EOF) {
		s.say("%s: %s", name, reason(err))
		return statusFailed
	}
	return status
}

// visit changes the ACLs of one inode.
func (s *setter) visit(path string, f *file, err error) int {
	if err != nil {
		return s.complain(path, err)
	}
	return s.change(f, s.changes)
}

// complain reports an error in setfacl's way: paths are not quoted.
func (s *setter) complain(path string, err error) int {
	var bad *malformedError
	if errors.As(err, &bad) {
		s.say("%s: Malformed %s ACL `%s': Missing or wrong entry at entry %d", path, bad.kind, s.text(bad.acl, longText), bad.entry)
	} else {
		s.say("%s: %s", path, reason(err))
	}
	return statusFailed
}

var errNoDirectory = errors.New("only directories can have default ACLs")

// change applies the changes to one inode and writes what is then different, the access ACL first.
func (s *setter) change(f *file, changes []change) int {
	var old pair
	var err error
	for kind := range old {
		if old[kind], err = f.read(acl.Kind(kind)); err != nil {
			return s.complain(f.path, err)
		}
	}
	now, err := apply(changes, old, f.is(modeDir), s.rule)
	if err != nil {
		return s.complain(f.path, err)
	}
	if s.walk.recursive && !f.is(modeDir) {
		now[acl.Default] = nil // with -R default entries are for the directories
	}
	if s.test {
		if err := s.show(f, old, now); err != nil {
			return s.complain(f.path, err)
		}
		return statusDone
	}
	for kind := range now {
		k := acl.Kind(kind)
		if now[k].Equal(old[k]) {
			continue
		}
		if k == acl.Default && !f.is(modeDir) {
			return s.complain(f.path, errNoDirectory)
		}
		if err := f.write(k, now[k]); err != nil {
			if s.denied(err) {
				return statusDenied
			}
			return s.complain(f.path, err)
		}
	}
	return statusDone
}

// show prints what --test prints: both ACLs, a star for one that stays as it is.
func (s *setter) show(f *file, old, now pair) error {
	text := [2]string{"*", "*"}
	for kind := range now {
		if !now[kind].Equal(old[kind]) {
			text[kind] = s.text(now[kind], [...]textStyle{shortText, shortDefaultText}[kind])
		}
	}
	_, err := fmt.Fprintf(s.Stdout, "%s: %s,%s\n", f.path, text[acl.Access], text[acl.Default])
	return err
}
