package facl

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/nsferry/nsferry/acl"
	"golang.org/x/sys/unix"
)

const getSynopsis = "[-aceEsRLPtpndvh] file ..."

// getOptions is the grammar of Get.
func getOptions() []option {
	return []option{
		{"access", 'a', "", "display the file access control list only"},
		{"default", 'd', "", "display the default access control list only"},
		{"omit-header", 'c', "", "do not display the comment header"},
		{"all-effective", 'e', "", "print all effective rights"},
		{"no-effective", 'E', "", "print no effective rights"},
		{"skip-base", 's', "", "skip files that only have the base entries"},
		{"recursive", 'R', "", "recurse into subdirectories"},
		{"logical", 'L', "", "logical walk, follow symbolic links"},
		{"physical", 'P', "", "physical walk, do not follow symbolic links"},
		{"tabular", 't', "", "use tabular output format"},
		{"numeric", 'n', "", "print numeric user/group identifiers"},
		{"one-file-system", 0, "", "skip files on different filesystems"},
		{"absolute-names", 'p', "", "don't strip leading '/' in pathnames"},
		{"inside", 0, "", "texts have the ids of the inside of the namespace"},
		{"help", 'h', "", "this help text"},
	}
}

// effective says which entries get a comment with the rights that the mask leaves.
type effective uint8

const (
	effectiveDiffering effective = iota
	effectiveAll                 // -e
	effectiveNone                // -E
)

// getter is one call of Get.
type getter struct {
	*session
	out                               *bufio.Writer
	access, def                       bool
	omitHeader, skipBase, tabular     bool
	numeric, absolute, absoluteWarned bool
	effective                         effective
}

// Get does what getfacl(1) does with args, and returns its exit status: 0 done, 1 something failed, 2 usage.
func Get(args []string, e IO) int {
	g := &getter{session: newSession(e), out: bufio.NewWriter(e.Stdout)}
	sc := &scanner{options: getOptions(), args: args}
	var files []string
	for {
		w, ok, err := sc.next()
		if err != nil {
			g.say("%v", err)
			return g.usage(getSynopsis)
		}
		if !ok {
			break
		}
		if w.opt == nil {
			files = append(files, w.value)
			continue
		}
		switch err := g.option(w.opt); {
		case errors.Is(err, errHelp):
			fmt.Fprintf(g.Stdout, "Usage: %s %s\n%s", g.Command, getSynopsis, usageText(getOptions()))
			return statusDone
		case err != nil:
			g.say("%v", err)
			return statusUsage
		}
	}
	if len(files) == 0 {
		return g.usage(getSynopsis)
	}
	if !g.access && !g.def {
		g.access, g.def = true, true
	}
	g.job = g.makeJob
	status := statusDone
	for _, argument := range files {
		status = max(status, g.each(argument, func(path string) int {
			if path == "" && argument == "-" { // a blank line
				return statusDone
			}
			return g.tree(path, g.visit)
		}))
	}
	if err := g.out.Flush(); err != nil {
		g.say("%s", reason(err))
		return statusFailed
	}
	return status
}

// option takes note of one option.
func (g *getter) option(o *option) error {
	switch o.long {
	case "access":
		g.access = true
	case "default":
		g.def = true
	case "omit-header":
		g.omitHeader = true
	case "all-effective":
		g.effective = effectiveAll
	case "no-effective":
		g.effective = effectiveNone
	case "skip-base":
		g.skipBase = true
	case "tabular":
		g.tabular = true
	case "numeric":
		g.numeric = true
	case "absolute-names":
		g.absolute = true
	case "inside":
		return g.inside()
	case "help":
		return errHelp
	default:
		g.walk.option(o.long)
	}
	return nil
}

// makeJob is Get for one file. What has been printed so far comes before what the job prints.
func (g *getter) makeJob() Job {
	_ = g.out.Flush() // an error stays, and the last Flush returns it
	return Job{Get: &getJob{Access: g.access, Default: g.def, OmitHeader: g.omitHeader, SkipBase: g.skipBase, Tabular: g.tabular,
		Numeric: g.numeric, Absolute: g.absolute, Effective: g.effective}}
}

// visit prints the ACLs of one inode.
func (g *getter) visit(path string, f *file, err error) int {
	var acls pair
	for kind, wanted := range []bool{g.access, g.def} {
		if err == nil && wanted {
			acls[kind], err = f.read(acl.Kind(kind))
		}
	}
	if err != nil {
		return g.complain(path, err)
	}
	if g.skipBase && len(acls[acl.Default]) == 0 && (!g.access || acls[acl.Access].Minimal()) {
		return statusDone
	}
	if err := g.print(f, acls); err != nil {
		g.say("%s", reason(err))
		return statusFailed
	}
	return statusDone
}

// complain reports an error; what was printed before comes first where both go to the same place.
func (g *getter) complain(path string, err error) int {
	if ferr := g.out.Flush(); ferr != nil {
		err = errors.Join(err, ferr)
	}
	return g.fail(path, err)
}

// print writes the header and the ACLs of a file.
func (g *getter) print(f *file, acls pair) error {
	if !g.omitHeader || g.tabular {
		fmt.Fprintf(g.out, "# file: %s\n", quote(g.shownPath(f.path), "\n\r"))
	}
	if g.omitHeader && len(acls[acl.Access]) == 0 && len(acls[acl.Default]) == 0 {
		return nil
	}
	if g.tabular {
		g.table(f, acls)
		return g.out.WriteByte('\n')
	}
	if !g.omitHeader {
		fmt.Fprintf(g.out, "# owner: %s\n# group: %s\n", g.owner(false, f.st.Uid), g.owner(true, f.st.Gid))
		if f.st.Mode&0o7000 != 0 {
			flags := []byte("sst")
			for i := range flags {
				if f.st.Mode&(unix.S_ISUID>>i) == 0 {
					flags[i] = '-'
				}
			}
			fmt.Fprintf(g.out, "# flags: %s\n", flags)
		}
	}
	g.list(acls[acl.Access], "")
	prefix := "default:"
	if !g.access {
		prefix = ""
	}
	g.list(acls[acl.Default], prefix)
	return g.out.WriteByte('\n')
}

// owner is an owner for the header. One without an image is nobody, as the kernel shows it inside.
func (g *getter) owner(group bool, id uint32) string {
	if _, ok := g.ids.ToText(group, id); !ok {
		return g.nobody(group)
	}
	return g.name(group, id, g.numeric, " \t\n\r")
}

// nobody is the kernel's overflow id as a text shows it.
func (g *getter) nobody(group bool) string {
	lookup := g.Names.UserName
	if group {
		lookup = g.Names.GroupName
	}
	if name, ok := lookup(overflowID); ok && !g.numeric {
		return quote(name, " \t\n\r")
	}
	return fmt.Sprint(overflowID)
}

// overflowID is what stat(2) shows for an owner that the reader's namespace does not map.
const overflowID = 65534

// shownPath is the path for the header: relative, unless asked for as it is.
func (g *getter) shownPath(path string) string {
	if g.absolute {
		return path
	}
	if strings.HasPrefix(path, "/") {
		if !g.absoluteWarned {
			g.say("Removing leading '/' from absolute path names")
			g.absoluteWarned = true
		}
		path = strings.TrimLeft(path, "/")
	} else if rest, ok := strings.CutPrefix(path, "./"); ok {
		path = strings.TrimLeft(rest, "/")
	}
	if path == "" {
		return "."
	}
	return path
}

// list writes one ACL, an entry a line.
func (g *getter) list(a acl.ACL, prefix string) {
	mask, masked := find(a, acl.Mask)
	for _, e := range a {
		line := prefix + e.Tag.String() + ":" + g.entryName(e, g.numeric) + ":" + perms(e.Perm)
		g.out.WriteString(line)
		cut := masked && (e.Tag == acl.User || e.Tag == acl.Group || e.Tag == acl.GroupObj)
		if cut && (g.effective == effectiveAll || g.effective == effectiveDiffering && e.Perm&^mask != 0) {
			tabs := 1
			if g.Terminal {
				tabs = max(1, (effectiveColumn-len(line)+7)/8)
			}
			g.out.WriteString(strings.Repeat("\t", tabs) + "#effective:" + perms(e.Perm&mask))
		}
		g.out.WriteByte('\n')
	}
}

// effectiveColumn is where comments stand on a terminal.
const effectiveColumn = 32
