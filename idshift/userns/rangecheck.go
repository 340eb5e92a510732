package userns

import (
	"fmt"
	"strconv"

	"github.com/nsferry/nsferry/idshift"
	"golang.org/x/sys/unix"
)

// checkRanges: newuidmap refuses ids that the sub-id files do not grant, which happens with an explicit map, and
// where the files that it reads differ from the ones that we read (nsswitch.conf, a container).
func checkRanges(x *exam) Finding {
	f := Finding{ID: "subid.granted", State: StateOK, What: "the planned maps lie in the granted sub-id ranges"}
	if x.env == nil || x.env.Direct || x.writesMaps() {
		f.What = "sub-id ranges are not needed"
		return f
	}
	c := x.env.Caller
	for _, side := range []struct {
		file   string
		m      idshift.Map
		own    uint32
		ranges []idshift.Range
	}{{"/etc/subuid", x.env.Handoff.UID, c.UID, c.UIDRanges}, {"/etc/subgid", x.env.Handoff.GID, c.GID, c.GIDRanges}} {
		for _, ext := range side.m.Extents() {
			if granted(ext, side.own, side.ranges) {
				continue
			}
			f.ID, f.State = "subid.foreign", StateProblem
			f.What = fmt.Sprintf("the map uses outside ids %d to %d, which are not granted to this user", ext.Outside, uint64(ext.Outside)+uint64(ext.Count)-1)
			f.Evidence = fmt.Sprintf("%s grants %s", side.file, rangesText(side.ranges))
			f.Remedy = fmt.Sprintf("as root: echo '%s:%d:%d' >> %s", callerName(c), ext.Outside, ext.Count, side.file)
			return f
		}
	}
	if x.fail != nil && c.Name == "" {
		f.ID, f.State = "user.name", StateProblem
		f.What = fmt.Sprintf("uid %d has no name, and %s wants one", c.UID, mapTool(x.fail.step))
		f.Evidence = x.fail.output
		f.Remedy = fmt.Sprintf("as root: add a line for uid %d to /etc/passwd, or make its name service reachable", c.UID)
		return f
	}
	if x.fail != nil && x.fail.output != "" {
		f.ID, f.State = "subid.refused", StateProblem
		f.What = mapTool(x.fail.step) + " refuses a map that the sub-id files grant"
		f.Evidence = x.fail.output
		f.Remedy = "look for another sub-id source in /etc/nsswitch.conf (subid:), and for a file that only root sees changed"
	}
	return f
}

// granted tells whether the extent's outside ids are the caller's own id or lie within its ranges, taken together.
func granted(ext idshift.Extent, own uint32, ranges []idshift.Range) bool {
	first, end := uint64(ext.Outside), uint64(ext.Outside)+uint64(ext.Count)
	for first < end {
		if first == uint64(own) {
			first++
			continue
		}
		next := first
		for _, r := range ranges {
			if e := uint64(r.First) + uint64(r.Count); uint64(r.First) <= first && e > next {
				next = e
			}
		}
		if next == first {
			return false
		}
		first = next
	}
	return true
}

func rangesText(ranges []idshift.Range) string {
	if len(ranges) == 0 {
		return "nothing"
	}
	s := ""
	for i, r := range ranges {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%d to %d", r.First, uint64(r.First)+uint64(r.Count)-1)
	}
	return s
}

func callerName(c idshift.Caller) string {
	if c.Name != "" {
		return c.Name
	}
	return strconv.FormatUint(uint64(c.UID), 10)
}

// checkRootMap: since Linux 5.12 a map that contains the parent namespace's uid 0 needs CAP_SETFCAP
// (user_namespaces(7)), which containers may lack.
func checkRootMap(x *exam) Finding {
	f := Finding{ID: "userns.rootmap", State: StateOK, What: "the maps can be written"}
	if x.fail == nil || !x.writesMaps() {
		return f
	}
	eff, err := strconv.ParseUint(x.sys.status("CapEff"), 16, 64)
	if _, maps := x.env.Handoff.UID.ToInside(0); maps && err == nil && eff&(1<<unix.CAP_SETFCAP) == 0 {
		f.State, f.What, f.Evidence = StateProblem, "mapping uid 0 needs CAP_SETFCAP", "CapEff: "+x.sys.status("CapEff")
		f.Remedy = "start the container with --cap-add SETFCAP, or use a map without outside uid 0"
	}
	return f
}
