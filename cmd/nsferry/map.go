package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
)

type mapCmd struct {
	Show      mapShowCmd      `cmd:"" default:"withargs" help:"Show the maps in effect, and how newuidmap and newgidmap are called for them."`
	Check     mapCheckCmd     `cmd:"" help:"Tell which ids an archive needs and the map lacks."`
	ToInside  mapToInsideCmd  `cmd:"" help:"Print the inside id of an outside id."`
	ToOutside mapToOutsideCmd `cmd:"" help:"Print the outside id of an inside id."`
}

type mapShowCmd struct {
	Shell bool `help:"Print assignments that a shell can evaluate."`
}

// mapView is what map show reports. Maps are as --map takes them.
type mapView struct {
	Mode       userns.Mode     `json:"mode"`
	Nested     bool            `json:"nested,omitempty"`
	Caller     string          `json:"caller,omitempty"`
	CallerUID  uint32          `json:"caller_uid"`
	CallerGID  uint32          `json:"caller_gid"`
	SubUIDs    []idshift.Range `json:"sub_uids"`
	SubGIDs    []idshift.Range `json:"sub_gids"`
	UIDMap     idshift.Map     `json:"uid_map"`
	GIDMap     idshift.Map     `json:"gid_map"`
	HandoffUID idshift.Map     `json:"handoff_uid_map"`
	HandoffGID idshift.Map     `json:"handoff_gid_map"`
	UIDArgs    []string        `json:"newuidmap_args"`
	GIDArgs    []string        `json:"newgidmap_args"`
}

// Run shows what every other command would use with the same global flags.
func (c *mapShowCmd) Run(e *userns.Env, out *Out) error {
	v := mapView{
		Mode: e.Mode, Nested: e.Nested,
		Caller: e.Caller.Name, CallerUID: e.Caller.UID, CallerGID: e.Caller.GID,
		SubUIDs: e.Caller.UIDRanges, SubGIDs: e.Caller.GIDRanges,
		UIDMap: e.Plain.UID, GIDMap: e.Plain.GID,
		HandoffUID: e.Handoff.UID, HandoffGID: e.Handoff.GID,
		UIDArgs: e.Plain.UID.Args(), GIDArgs: e.Plain.GID.Args(),
	}
	if c.Shell {
		return out.Answer(v, v.shell)
	}
	return out.Answer(v, v.text)
}

// shell prints variables; their values hold digits, colons, commas and spaces, and the mode's name.
func (v mapView) shell(w io.Writer) error {
	_, err := fmt.Fprintf(w, "nsferry_mode='%s'\nnsferry_uid_map='%s'\nnsferry_gid_map='%s'\n"+
		"nsferry_newuidmap_args='%s'\nnsferry_newgidmap_args='%s'\nnsferry_root_uid='%s'\nnsferry_root_gid='%s'\n",
		v.Mode, v.UIDMap, v.GIDMap, strings.Join(v.UIDArgs, " "), strings.Join(v.GIDArgs, " "), outsideZero(v.UIDMap), outsideZero(v.GIDMap))
	return err
}

// outsideZero is the outside id of inner root, "" if there is none.
func outsideZero(m idshift.Map) string {
	id, ok := m.ToOutside(0)
	if !ok {
		return ""
	}
	return strconv.FormatUint(uint64(id), 10)
}

func (v mapView) text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	nested := ""
	if v.Nested {
		nested = ", inside a user namespace"
	}
	fmt.Fprintf(t, "mode\t%s%s\n", v.Mode, nested)
	fmt.Fprintf(t, "caller\tuid %d, gid %d %s\n", v.CallerUID, v.CallerGID, v.Caller)
	fmt.Fprintf(t, "sub-uids\t%s\n", ranges(v.SubUIDs))
	fmt.Fprintf(t, "sub-gids\t%s\n", ranges(v.SubGIDs))
	fmt.Fprintln(t, "\tINSIDE\tOUTSIDE\tCOUNT")
	for _, m := range []struct {
		name string
		m    idshift.Map
	}{{"uid", v.UIDMap}, {"gid", v.GIDMap}, {"handoff uid", v.HandoffUID}, {"handoff gid", v.HandoffGID}} {
		for _, e := range m.m.Extents() {
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\n", m.name, e.Inside, e.Outside, e.Count)
		}
	}
	if v.Mode == userns.ModeUnshare {
		fmt.Fprintf(t, "newuidmap\tPID %s\n", strings.Join(v.UIDArgs, " "))
		fmt.Fprintf(t, "newgidmap\tPID %s\n", strings.Join(v.GIDArgs, " "))
	}
	return t.Flush()
}

func ranges(rs []idshift.Range) string {
	if len(rs) == 0 {
		return "none"
	}
	var s []string
	for _, r := range rs {
		s = append(s, fmt.Sprintf("%d to %d", r.First, uint64(r.First)+uint64(r.Count)-1))
	}
	return strings.Join(s, ", ")
}

type mapCheckCmd struct {
	Archive string `arg:"" help:"An archive; - is standard input."`
}

// Run fails with the list of ids that unpack would fail with.
func (c *mapCheckCmd) Run(ctx context.Context, e *userns.Env, g *Globals, out *Out) error {
	in, err := ferry.Open(c.Archive)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := archive.CheckFit(ctx, in, e.Plain, ferry.Workers(g.Jobs)); err != nil {
		return fmt.Errorf("%s: %w", c.Archive, err)
	}
	return out.Answer(map[string]bool{"fits": true}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: every id has a place\n", c.Archive)
		return err
	})
}

// mapID is an id on the command line.
type mapID struct {
	ID  uint32 `arg:"" help:"The id, a number."`
	GID bool   `name:"gid" short:"g" help:"It is a group id."`
}

func (i mapID) kind() idshift.Kind {
	if i.GID {
		return idshift.GID
	}
	return idshift.UID
}

func (i mapID) answer(id uint32, ok, inside bool, out *Out) error {
	if !ok {
		return &idshift.UnmappedError{Kind: i.kind(), ID: i.ID, Inside: inside}
	}
	return out.Answer(map[string]uint32{"id": id}, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, id)
		return err
	})
}

type mapToInsideCmd struct {
	mapID
}

// Run prints the id that the kernel, or arithmetic, gives a file of this owner inside.
func (c *mapToInsideCmd) Run(e *userns.Env, out *Out) error {
	id, ok := e.Plain.Of(c.kind()).ToInside(c.ID)
	return c.answer(id, ok, false, out)
}

type mapToOutsideCmd struct {
	mapID
}

// Run prints the id that a file of this inner owner has on disk.
func (c *mapToOutsideCmd) Run(e *userns.Env, out *Out) error {
	id, ok := e.Plain.Of(c.kind()).ToOutside(c.ID)
	return c.answer(id, ok, true, out)
}
