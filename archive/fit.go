package archive

import (
	"context"
	"os"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/idshift"
)

// CheckFit reports, as a *MisfitError, the ids of owners and ACLs in an archive that plain, a model's map, has no place for:
// what Extract would refuse, without writing anything.
func CheckFit(ctx context.Context, in *os.File, plain idshift.Mapping, workers int) error {
	var bad misfits
	shift := plain.Outside()
	err := List(ctx, in, workers, func(n listing.Node) error {
		if n.Type == listing.Hardlink {
			return nil
		}
		for k, id := range [2]uint32{n.UID, n.GID} {
			if _, err := shift.Owner(idshift.Kind(k), id); bad.note(n.Name, err) != nil {
				return err
			}
		}
		for _, text := range [2]string{n.ACL, n.Default} {
			if text == "" {
				continue
			}
			a, err := acl.Parse(text, debianNames{})
			if err == nil {
				_, err = shift.ACL(a)
			}
			if err := bad.note(n.Name, err); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return bad.err(plain)
}
