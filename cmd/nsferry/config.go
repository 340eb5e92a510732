package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/nsferry/nsferry/idshift/userns"
)

const systemConfig = "/etc/nsferry/config.json"

// userConfig is the caller's configuration file, "" if he has no home directory.
func userConfig() string {
	dir, err := os.UserConfigDir() // $XDG_CONFIG_HOME, ~/.config
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "nsferry", "config.json")
}

// configFile resolves flags from a JSON object: a key is the name of a global flag, or the name of a command with an
// object of its flags (and subcommands). A key that is no flag is an error, so that a misspelt policy is never ignored.
type configFile struct {
	path   string
	values map[string]any
}

// configFiles reads those of paths that exist; a later one wins. A file that the caller may not read is somebody else's
// (HOME survives many a change of user): a warning.
func configFiles(out *Out, paths ...string) ([]kong.Resolver, error) {
	var rs []kong.Resolver
	for _, p := range paths {
		if p == "" {
			continue
		}
		data, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if errors.Is(err, fs.ErrPermission) {
			out.Warn(Warning{What: "configuration files ignored, permission denied", Count: 1, First: p})
			continue
		}
		if err != nil {
			return nil, &userns.UsageError{What: fmt.Sprintf("configuration: %v", err)}
		}
		c := &configFile{path: p}
		if err := json.Unmarshal(data, &c.values); err != nil {
			return nil, &userns.UsageError{What: fmt.Sprintf("configuration %s: %v", p, err)}
		}
		rs = append(rs, c)
	}
	return rs, nil
}

// Validate holds the keys of the file against the grammar.
func (c *configFile) Validate(app *kong.Application) error {
	return c.check(app.Node, c.values, "")
}

func (c *configFile) check(n *kong.Node, values map[string]any, at string) error {
keys:
	for key, v := range values {
		for _, f := range n.Flags {
			if f.Name == key && key != "help" && key != "version" {
				continue keys
			}
		}
		for _, child := range n.Children {
			sub, ok := v.(map[string]any)
			if child.Name == key && ok {
				if err := c.check(child, sub, at+key+"."); err != nil {
					return err
				}
				continue keys
			}
		}
		return fmt.Errorf("configuration %s: %s%s is no flag of nsferry", c.path, at, key)
	}
	return nil
}

// Resolve returns the file's value for flag, or nil. The environment wins over the file, which kong's own resolvers get
// the other way round.
func (c *configFile) Resolve(_ *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	for _, env := range flag.Envs {
		if _, ok := os.LookupEnv(env); ok {
			return nil, nil
		}
	}
	values := c.values
	for _, name := range commandNames(parent.Node()) {
		values, _ = values[name].(map[string]any)
	}
	return values[flag.Name], nil
}

// commandNames are the names of n and its parents, outermost first, without the application's.
func commandNames(n *kong.Node) []string {
	if n == nil || n.Parent == nil {
		return nil
	}
	return append(commandNames(n.Parent), n.Name)
}
