package deploy

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/nsferry/nsferry/idshift/userns"
)

// MismatchError says that a source is not what it was expected to be.
type MismatchError struct{ What, Want, Got string }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s is %s, and %s was expected; nothing is deployed", e.What, e.Got, e.Want)
}

func (x Expectation) check() error {
	if sum, err := hex.DecodeString(x.SHA256); err != nil || x.SHA256 != "" && len(sum) != 32 {
		return &userns.UsageError{What: fmt.Sprintf("%q is not a sha256 in hex", x.SHA256)}
	}
	if x.Size != nil && *x.Size < 0 {
		return &userns.UsageError{What: "an expected size cannot be negative"}
	}
	return nil
}

func (x Expectation) checkSize(got int64) error {
	if x.Size != nil && *x.Size != got {
		return &MismatchError{"the size", fmt.Sprint(*x.Size), fmt.Sprint(got)}
	}
	return nil
}

func (x Expectation) checkSum(got string) error {
	if x.SHA256 != "" && !strings.EqualFold(x.SHA256, got) {
		return &MismatchError{"the sha256", strings.ToLower(x.SHA256), got}
	}
	return nil
}
