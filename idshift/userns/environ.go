package userns

import (
	"os"
	"slices"
	"strings"
)

// rootPath is root's PATH in Debian (login.defs(5), ENV_SUPATH).
const rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is what the command inherits: the caller's environment, in which a rootfs replaces what describes the
// caller's own machine and account. s.Env comes later, over the presets of the mounts.
func (s *Spec) environment() []string {
	var env []string
	if !s.CleanEnv {
		env = os.Environ()
	}
	if s.Mounts.Root == nil {
		return env
	}
	env = slices.DeleteFunc(env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return name == "TMPDIR" || name == "XDG_RUNTIME_DIR"
	})
	return mergeEnv(env, []string{"PATH=" + rootPath, "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/sh"})
}

// mergeEnv returns base with the variables of over set, each name once, the last value winning.
func mergeEnv(base, over []string) []string {
	all := slices.Concat(base, over)
	at := map[string]int{}
	var out []string
	for _, kv := range all {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			out[i] = kv
			continue
		}
		at[name] = len(out)
		out = append(out, kv)
	}
	return out
}

// envValue returns the value of a variable in env, or "".
func envValue(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
