package main

import (
	"github.com/alecthomas/kong"

	"github.com/nsferry/nsferry/idshift/userns"
)

// cli is the whole grammar. A command group has a file of its own; here is only what they hang on.
type cli struct {
	Globals

	Pack    packCmd    `cmd:"" group:"tree" help:"Make an archive of a tree."`
	Unpack  unpackCmd  `cmd:"" group:"tree" help:"Make a tree of an archive."`
	Ls      lsCmd      `cmd:"" group:"tree" help:"List a tree or an archive, one line an inode."`
	Cat     catCmd     `cmd:"" group:"tree" help:"Print a file of an archive."`
	Diff    diffCmd    `cmd:"" group:"tree" help:"Compare trees and archives."`
	Verify  verifyCmd  `cmd:"" group:"tree" help:"Check that an archive is whole."`
	Convert convertCmd `cmd:"" group:"tree" help:"Make an archive of another one, without a tree."`
	Deploy  deployCmd  `cmd:"" group:"tree" help:"Hand files of a tree to their owner outside: you."`
	Rm      rmCmd      `cmd:"" group:"tree" help:"Remove trees, whoever of you and your sub-ids owns them."`

	ACL    aclCmd    `cmd:"" name:"acl" group:"ids" help:"Show and change ACLs, as getfacl and setfacl do."`
	Shift  shiftCmd  `cmd:"" group:"ids" help:"Re-own a tree in place: from one model, range or map to another."`
	Give   giveCmd   `cmd:"" group:"ids" help:"Make files yours."`
	Take   takeCmd   `cmd:"" group:"ids" help:"Make files inner root's."`
	Clamp  clampCmd  `cmd:"" group:"ids" help:"Set the times of a tree that are later than an epoch to it."`
	Grant  grantCmd  `cmd:"" group:"ids" help:"Let inner root into directories of yours, for tools that walk paths."`
	Revoke revokeCmd `cmd:"" group:"ids" help:"Take grants back: everything is again what it was."`
	Audit  auditCmd  `cmd:"" group:"ids" help:"Who owns what below a directory, and what there is dangerous or left over."`
	Du     duCmd     `cmd:"" group:"ids" help:"Sizes of trees, what you cannot read included."`

	Sstate sstateCmd `cmd:"" group:"cache" help:"A cache of trees: save, restore, and what keeps it in order."`
	Debs   debsCmd   `cmd:"" group:"cache" help:"A cache of Debian packages: lend them to rootfs trees, take what they have downloaded."`

	Run        runCmd        `cmd:"" group:"namespace" help:"Run a command as inner root, in a rootfs or in your own root directory."`
	Doctor     doctorCmd     `cmd:"" group:"namespace" help:"Test every prerequisite, and say what to do about what is missing."`
	Map        mapCmd        `cmd:"" group:"namespace" help:"Show the id maps, translate ids."`
	Completion completionCmd `cmd:"" group:"about" help:"Print a completion script for a shell."`
	Man        manCmd        `cmd:"" group:"about" help:"Print the manual page."`
}

// Globals are the flags that every command has. Each can also come from the environment or from a configuration file;
// the command line wins over the environment, and that over ${config}.
type Globals struct {
	Mode       string           `enum:"auto,unshare,root" default:"auto" env:"NSFERRY_MODE" help:"How to get at foreign owners: a new user namespace (unshare), real root, or what the caller is (auto). One of ${enum}."`
	Model      string           `enum:"base,caller,identity" default:"base" env:"NSFERRY_MODEL" help:"How inside ids map to outside ids: 0 to the first sub-id (base), 0 to the caller (caller), the caller to himself (identity)."`
	MapSpec    string           `name:"map" placeholder:"SPEC" env:"NSFERRY_MAP" help:"Explicit map instead of a model: [u:|g:]INSIDE:OUTSIDE:COUNT, comma separated."`
	Jobs       int              `short:"j" default:"0" placeholder:"N" env:"NSFERRY_JOBS" help:"Number of workers; 0 is one for each processor."`
	JSON       bool             `name:"json" env:"NSFERRY_JSON" help:"Print one JSON object on stdout when done, also after a failure."`
	Quiet      bool             `short:"q" xor:"volume" env:"NSFERRY_QUIET" help:"No summary and no progress. Warnings and errors stay."`
	Verbose    bool             `short:"v" xor:"volume" env:"NSFERRY_VERBOSE" help:"Say more on stderr."`
	NoProgress bool             `env:"NSFERRY_NO_PROGRESS" help:"No progress line on a terminal."`
	Version    kong.VersionFlag `help:"Print the version and exit."`
}

// check refuses what the types alone let through.
func (g *Globals) check() error {
	if g.Jobs < 0 {
		return &userns.UsageError{What: "--jobs must not be negative"}
	}
	return nil
}

// newParser builds the grammar that args need. Output of --help and --version goes to out; exit is called instead of
// os.Exit, and returns. The flags that every command has are read into the result.
func newParser(args []string, out *Out, exit func(int)) (*kong.Kong, *Globals, error) {
	config, err := configFiles(out, systemConfig, userConfig())
	if err != nil {
		return nil, nil, err
	}
	if len(config) > 0 { // which is checked against the whole grammar
		args = nil
	}
	grammar, g := partFor(args)
	parser, err := kong.New(grammar,
		kong.Name("nsferry"),
		kong.Description("Move rootfs artifacts across a user-namespace border without root."),
		kong.Writers(out.Stdout, out.Stderr),
		kong.Exit(exit),
		kong.Vars{"version": version(), "config": userConfig()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "tree", Title: "Trees and archives:"},
			{Key: "ids", Title: "Owners, ids and ACLs:"},
			{Key: "cache", Title: "Caches:"},
			{Key: "namespace", Title: "Namespace:"},
			{Key: "about", Title: "About nsferry:"},
		}),
		kong.Resolvers(config...),
		// Only a command that asks for an Env needs sub-ids.
		kong.BindToProvider(g.env),
		kong.BindToProvider(func() (envFunc, error) { return g.env, nil }),
	)
	return parser, g, err
}

// env decides, by the global flags, how inner halves run.
func (g *Globals) env() (*userns.Env, error) {
	return userns.NewEnv(userns.Options{Mode: g.Mode, Model: g.Model, Map: g.MapSpec})
}
