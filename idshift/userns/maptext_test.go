package userns

import (
	"fmt"
	"strings"

	"github.com/nsferry/nsferry/idshift"
)

// mapText is how /proc/PID/uid_map reads from inside, fields separated by one blank.
func mapText(ext []idshift.Extent) string {
	var s []string
	for _, x := range ext {
		s = append(s, fmt.Sprintf("%d %d %d", x.Inside, x.Outside, x.Count))
	}
	return strings.Join(s, " ")
}
