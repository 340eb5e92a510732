package userns

import (
	"strconv"
	"syscall"
)

// ignoredSignals lists the signals that the caller had set to be ignored (nohup, a shell's background job), for a
// command inside is to find them as it would have without us between. It reads what this process ignores now, so it
// knows only of those that nobody here has asked os/signal for since.
//
// The Go runtime leaves SIGHUP, SIGINT and the terminal's stop signals as they were, and takes over all others without
// a trace. Of those SIGQUIT is inferred: a shell without job control ignores it together with SIGINT (POSIX, XCU
// 2.11). An inherited "ignore" for any other, such as SIGPIPE, is lost: the command finds the default.
func (s System) ignoredSignals() []int {
	mask, err := strconv.ParseUint(s.status("SigIgn"), 16, 64)
	if err != nil {
		return nil
	}
	var list []int
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU} {
		if mask&(1<<(sig-1)) != 0 {
			list = append(list, int(sig))
			if sig == syscall.SIGINT {
				list = append(list, int(syscall.SIGQUIT))
			}
		}
	}
	return list
}
