package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate/debs"
)

type debsCmd struct {
	Import  debsImportCmd  `cmd:"" help:"Lend the cached debs to apt inside a rootfs."`
	Export  debsExportCmd  `cmd:"" help:"Take the debs that apt has downloaded into the cache: checked against apt's lists, whole or not at all."`
	Stage   debsStageCmd   `cmd:"" help:"Make a directory with the cached debs for a tool that enters a namespace by itself, as mmdebstrap."`
	Unstage debsUnstageCmd `cmd:"" help:"Take what such a tool has left in the directory into the cache, and remove it."`
	Prune   debsPruneCmd   `cmd:"" help:"Remove packages from the cache: superseded, old, or too many bytes."`
	Verify  debsVerifyCmd  `cmd:"" help:"Read all cached debs; find those that are damaged, or not what lists say."`
}

// warnDebs reports files that a command could do without.
func warnDebs(out *Out, what string, files []debs.Refusal) {
	if len(files) > 0 {
		out.Warn(Warning{What: what, Count: int64(len(files)), First: files[0].String()})
	}
	for _, f := range files {
		out.Verbose("%s", f)
	}
}

type debsImportCmd struct {
	Dl           string            `arg:"" name:"dl" help:"The cache, a directory of debs. One that does not exist yet has none."`
	Rootfs       string            `arg:"" help:"The rootfs."`
	Link         debs.Link         `enum:"safe,hard,reflink,copy" default:"safe" help:"How debs come in: as a hard link where the inner side can neither own nor write the file, else with shared blocks, else as a copy (safe), or one of these only: ${enum}."`
	ArchivesMode debs.ArchivesMode `enum:"0777,1777,0755,acl" default:"0777" help:"Mode of var/cache/apt/archives until the export: ${enum}. acl is 0755 with entries for _apt, sbuild and you."`
	OnlyNeeded   string            `placeholder:"FILE" help:"Bring in what FILE (or -, stdin) asks for: package names, for which apt's lists give what they may depend on; names or paths of debs; or the output of apt-get --print-uris."`
	Lists        string            `type:"path" placeholder:"DIR" help:"Trust the Packages files in DIR, not those of the rootfs."`
	DryRun       bool              `short:"n" help:"Change nothing; print the plan."`
}

// Run imports.
func (c *debsImportCmd) Run(ctx context.Context, g *Globals, env envFunc, out *Out) error {
	needed, err := readNeeded(c.OnlyNeeded)
	if err != nil {
		return err
	}
	sum, err := debs.Import(ctx, debs.EnvFunc(env), c.Dl, c.Rootfs, debs.ImportOptions{Link: c.Link, Mode: c.ArchivesMode, Needed: needed,
		Lists: c.Lists, DryRun: c.DryRun, Workers: g.Jobs, Note: out.note})
	return reportImport(out, sum, err)
}

func reportImport(out *Out, sum debs.Imported, err error) error {
	if !reported(err) {
		return err
	}
	warnDebs(out, "damaged debs left in the cache", sum.Damaged)
	out.Summary(sum)
	return errors.Join(err, printPlan(out, sum.Plan))
}

// readNeeded reads the file of --only-needed. Without one everything is needed.
func readNeeded(name string) (*debs.Needed, error) {
	switch name {
	case "":
		return nil, nil
	case "-":
		return debs.ParseNeeded(os.Stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return debs.ParseNeeded(f)
}

type debsExportCmd struct {
	Rootfs    string        `arg:"" help:"The rootfs."`
	Dl        string        `arg:"" name:"dl" help:"The cache; made if it is missing."`
	Unlisted  debs.Unlisted `enum:"skip,keep,fail" default:"skip" help:"What to do with debs that no list knows: leave them and say so (skip), take those that are whole and what their names say (keep), or fail."`
	LocalRepo []string      `type:"path" placeholder:"DIR" help:"Do not export what a repository in DIR has: the same name, version, architecture and content."`
	Lists     string        `type:"path" placeholder:"DIR" help:"Trust the Packages files in DIR, not those of the rootfs."`
	KeepMode  bool          `help:"Leave the archives as open as import has made them."`
	DryRun    bool          `short:"n" help:"Change nothing; print the plan."`
}

// Run exports.
func (c *debsExportCmd) Run(ctx context.Context, g *Globals, env envFunc, out *Out) error {
	sum, err := debs.Export(ctx, debs.EnvFunc(env), c.Rootfs, c.Dl, debs.ExportOptions{Unlisted: c.Unlisted, LocalRepos: c.LocalRepo,
		Lists: c.Lists, KeepMode: c.KeepMode, DryRun: c.DryRun, Workers: g.Jobs, Note: out.note})
	return reportExport(out, sum, err)
}

func reportExport(out *Out, sum debs.Exported, err error) error {
	if !reported(err) {
		return err
	}
	if n := len(sum.Unlisted); n > 0 {
		out.Warn(Warning{What: "debs that no list knows, not exported", Count: int64(n), First: sum.Unlisted[0]})
	}
	out.Summary(sum)
	return errors.Join(err, printPlan(out, sum.Plan))
}

type debsVerifyCmd struct {
	Dl     string   `arg:"" name:"dl" help:"The cache."`
	Lists  []string `type:"path" placeholder:"DIR" help:"Compare with the Packages files in DIR, or with apt's lists in the rootfs DIR."`
	Remove bool     `help:"Remove what is damaged."`
	DryRun bool     `short:"n" help:"Remove nothing, and do not fail."`
}

// Run verifies.
func (c *debsVerifyCmd) Run(ctx context.Context, g *Globals, env envFunc, out *Out) error {
	v, err := debs.Verify(ctx, debs.EnvFunc(env), c.Dl, debs.VerifyOptions{Lists: c.Lists, Remove: c.Remove, DryRun: c.DryRun, Workers: g.Jobs, Note: out.note})
	if reported(err) {
		warnDebs(out, "damaged debs", v.Damaged)
		out.Summary(v)
	}
	return err
}

// reported tells whether a flow came to its end, so that there is a summary.
func reported(err error) bool {
	var refused *debs.RefusedError
	return err == nil || errors.As(err, &refused)
}

// printPlan prints what a dry run would do, one line a file.
func printPlan(out *Out, plan []debs.Step) error {
	if out.json {
		return nil
	}
	for _, s := range plan {
		line := string(s.Action) + "\t" + strconv.Quote(s.File)
		if s.Reason != "" {
			line += "\t" + s.Reason
		}
		if _, err := fmt.Fprintln(out.Stdout, line); err != nil {
			return err
		}
	}
	return nil
}

type debsStageCmd struct {
	Dl         string    `arg:"" name:"dl" help:"The cache."`
	Dir        string    `arg:"" help:"A new or empty directory, which inner root can reach by path."`
	Link       debs.Link `enum:"safe,hard,reflink,copy" default:"safe" help:"As for import."`
	OnlyNeeded string    `placeholder:"FILE" help:"As for import; package names need lists, which a new directory has not."`
}

// Run stages.
func (c *debsStageCmd) Run(ctx context.Context, g *Globals, env envFunc, out *Out) error {
	needed, err := readNeeded(c.OnlyNeeded)
	if err != nil {
		return err
	}
	sum, err := debs.Stage(ctx, debs.EnvFunc(env), c.Dl, c.Dir, debs.StageOptions{Link: c.Link, Needed: needed, Workers: g.Jobs, Note: out.note})
	return reportImport(out, sum, err)
}

type debsUnstageCmd struct {
	Dir      string        `arg:"" help:"The directory of stage; removed afterwards."`
	Dl       string        `arg:"" name:"dl" help:"The cache; made if it is missing."`
	Unlisted debs.Unlisted `enum:"skip,keep,fail" default:"skip" help:"As for export."`
	DryRun   bool          `short:"n" help:"Change nothing; print the plan."`
}

// Run unstages.
func (c *debsUnstageCmd) Run(ctx context.Context, g *Globals, env envFunc, out *Out) error {
	sum, err := debs.Unstage(ctx, debs.EnvFunc(env), c.Dir, c.Dl, debs.ExportOptions{Unlisted: c.Unlisted, DryRun: c.DryRun, Workers: g.Jobs, Note: out.note})
	return reportExport(out, sum, err)
}

type debsPruneCmd struct {
	Dl           string   `arg:"" name:"dl" help:"The cache."`
	KeepVersions int      `placeholder:"N" help:"Keep the N newest versions of each package, by Debian's order of versions."`
	MaxAge       string   `placeholder:"AGE" help:"Remove what came, or was hard linked, longer ago: 30d, 12h."`
	MaxSize      string   `placeholder:"BYTES" help:"Remove what has not been used for longest until no more bytes are left; K, M, G and T are powers of 1024."`
	KeepFor      []string `type:"path" placeholder:"PATH" help:"Keep what a rootfs has installed, or what a manifest names, in any case."`
	DryRun       bool     `short:"n" help:"Remove nothing; print what would go."`
}

// Run prunes.
func (c *debsPruneCmd) Run(ctx context.Context, env envFunc, out *Out) error {
	age, err := parseAge(c.MaxAge)
	if err != nil {
		return err
	}
	size, err := parseSize(c.MaxSize)
	if err != nil {
		return err
	}
	o := debs.PruneOptions{Versions: c.KeepVersions, Age: age, Size: size, Keep: c.KeepFor, DryRun: c.DryRun, Note: out.note}
	if o.Versions <= 0 && o.Age <= 0 && o.Size <= 0 {
		return &userns.UsageError{What: "prune by what? give --keep-versions, --max-age or --max-size"}
	}
	p, err := debs.Prune(ctx, debs.EnvFunc(env), c.Dl, o)
	if err != nil {
		return err
	}
	warnDebs(out, "files that are no packages, left alone", p.Odd)
	out.Summary(p)
	if !c.DryRun || out.json {
		return nil
	}
	for _, r := range p.Removed {
		if _, err := fmt.Fprintf(out.Stdout, "%q\t%s\n", r.File, r.Reason); err != nil {
			return err
		}
	}
	return nil
}
