package facl_test

import (
	"errors"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// pick returns one of the words.
func pick(r *rand.Rand, words ...string) string { return words[r.IntN(len(words))] }

// entryText makes one entry, mostly a right one. perms says whether it has permissions.
func entryText(r *rand.Rand, perms bool) string {
	s := pick(r, "", "", "", "", "", "d:", "default:", pick(r, "", "", "d: "))
	switch r.IntN(12) {
	case 0, 1, 2, 3:
		s += pick(r, "u:", "user:", "u :", "u: ") + pick(r, "", "0", "1", "5", "root", "daemon", "4242", "07", "0x10", `ro\157t`, "4294967294", "+5", "010", "65534")
	case 4, 5, 6:
		s += pick(r, "g:", "group:", "g:") + pick(r, "", "0", "1", "5", "root", "4242", "mail", "adm")
	case 7, 8:
		s += pick(r, "m:", "mask:", "m", "mask", "m: ")
	case 9, 10:
		s += pick(r, "o:", "other:", "o", "other")
	case 11:
		s += pick(r, "root", "5", "daemon", "u", "g")
	}
	if perms {
		s += ":" + pick(r, "", "", "", " ") + pick(r, "r", "rw", "rwx", "-", "---", "r-x", "x", "X", "rX", "rwX", "w", "7", "5", "0", "07", "4", "xr", "-w-", "------")
	} else if r.IntN(4) == 0 {
		s += ":"
	}
	return s + pick(r, "", "", "", "", "", "", " ")
}

// mutate damages a text.
func mutate(r *rand.Rand, s string) string {
	const junk = "rwxX:,-# u gdmo079q\t\\\n"
	b := []byte(s)
	for range 1 + r.IntN(2) {
		if len(b) == 0 {
			break
		}
		i, c := r.IntN(len(b)), junk[r.IntN(len(junk))]
		switch r.IntN(3) {
		case 0:
			b[i] = c
		case 1:
			b = append(b[:i], b[i+1:]...)
		case 2:
			b = append(b[:i], append([]byte{c}, b[i:]...)...)
		}
	}
	return string(b)
}

// aclText makes a list of entries.
func aclText(r *rand.Rand, perms bool, sep string) string {
	var parts []string
	if perms && r.IntN(4) == 0 {
		parts = append(parts, "u::"+pick(r, "rwx", "r"), "g::"+pick(r, "rwx", "r-X"), "o::"+pick(r, "-", "7"))
	}
	for range r.IntN(3) + r.IntN(30)/29 {
		parts = append(parts, entryText(r, perms))
	}
	if len(parts) == 0 {
		parts = append(parts, entryText(r, perms))
	}
	s := strings.Join(parts, sep)
	if r.IntN(15) == 0 {
		s = mutate(r, s)
	}
	return s
}

// generate makes one command line. dir is the oracle's tree, from which backups are made.
func generate(r *rand.Rand, dir string) testCase {
	c := testCase{tool: "setfacl", files: map[string]string{}}
	switch n := r.IntN(20); {
	case n < 6:
		generateGet(r, &c, dir)
	case n < 9:
		generateRestore(r, &c, dir)
	default:
		generateSet(r, &c)
	}
	if safe(c) {
		return c
	}
	return generate(r, dir)
}

// safe rules out what differs by intent; TestIntended shows these.
func safe(c testCase) bool {
	texts := append([]string{c.stdin}, c.args...)
	for _, f := range c.files {
		texts = append(texts, f)
	}
	for _, t := range texts {
		if hasNegative(t) || hasHuge(t) || strings.Contains(t, "\x00") {
			return false
		}
	}
	return true
}

// hasHuge finds numbers that are no ids, which setfacl wraps round.
func hasHuge(t string) bool {
	for _, digits := range regexp.MustCompile("0[xX][0-9a-fA-F]+|[0-9]+").FindAllString(t, -1) {
		n, err := strconv.ParseUint(digits, 0, 64)
		if n > 4294967294 || errors.Is(err, strconv.ErrRange) {
			return true
		}
	}
	return false
}

// hasNegative finds a dash before a digit, which setfacl may take for a negative id.
func hasNegative(t string) bool {
	for i := 0; i+1 < len(t); i++ {
		if t[i] == '-' && t[i+1] >= '0' && t[i+1] <= '9' {
			return true
		}
	}
	return false
}

func fileWords(r *rand.Rand) []string {
	var files []string
	for range 1 + r.IntN(3) {
		files = append(files, pick(r, "f", "f", "d", "d", "e", "d/sub", "d/", "./d", "d//sub", "lf", "ld", "a b", `b\s`, "-", ".", "d/sub/g",
			pick(r, "f", "e", "dang", "nosuch", "f/x", "")))
	}
	return files
}

func stdinNames(r *rand.Rand) string {
	return strings.Join(fileWords(r), "\n") + pick(r, "", "\n")
}

func generateGet(r *rand.Rand, c *testCase, dir string) {
	c.tool = "getfacl"
	for range r.IntN(4) {
		c.args = append(c.args, pick(r, "-a", "-d", "-c", "-e", "-E", "-s", "-R", "-L", "-P", "-n", "-p", "-t", "-ce", "-cd", "-Rn", "-ad", "--omit-header",
			"--all", "--rec", "--num", "--tab", "--phys", "--one-file-system", pick(r, "-e", "-a", "-z", "--a", "--bogus", "--access=1")))
	}
	c.args = append(c.args, fileWords(r)...)
	if r.IntN(10) == 0 {
		c.args = append(c.args, pick(r, "-c", "--", "-R"), "f")
	}
	c.stdin = strings.ReplaceAll(stdinNames(r), "\n-", "\nf")
}

func generateSet(r *rand.Rand, c *testCase) {
	for range 1 + r.IntN(3) {
		switch n := r.IntN(24); {
		case n < 8:
			c.args = append(c.args, pick(r, "-m", "-m", "--modify", "-Rm", "-dm", "-nm"), aclText(r, true, pick(r, ",", ",", ", ")))
		case n < 12:
			c.args = append(c.args, pick(r, "-x", "-x", "--remove", "-dx", "-nx"), aclText(r, false, ","))
		case n < 14:
			c.args = append(c.args, "--set", aclText(r, true, ","))
		case n < 16:
			file, opt := pick(r, "-", "ACL"), pick(r, "-M", "-X", "--set-file", "--modify-file")
			text := aclText(r, opt != "-X", "\n") + pick(r, "", "\n", " # c\n", "\t#effective:r--\n", "\n\n")
			if file == "-" {
				c.stdin = text
			} else {
				c.files["ACL"] = text
			}
			c.args = append(c.args, opt, pick(r, file, file, file, file, file, "nosuch"))
		default:
			c.args = append(c.args, pick(r, "-b", "-k", "-n", "-d", "--mask", "-R", "-L", "-P", "--test", "--test", "-bk", "--no-mask",
				pick(r, "-R", "--rec", "--def", "--remove-a", "--remove-default", "--log", pick(r, "--rem", "-z", "--"))))
		}
		if r.IntN(12) == 0 {
			c.args = append(c.args, fileWords(r)...)
		}
	}
	c.args = append(c.args, fileWords(r)...)
	if c.stdin == "" {
		c.stdin = strings.ReplaceAll(stdinNames(r), "\n-", "\nf")
	}
}

func generateRestore(r *rand.Rand, c *testCase, dir string) {
	cmd := exec.Command("getfacl", append([]string{pick(r, "-R", "-Rn", "-Re", "-RE")}, pick(r, ".", "d", "f"))...)
	cmd.Dir = dir
	out, _ := cmd.Output()
	blocks := strings.SplitAfter(string(out), "\n\n")
	r.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	blocks = blocks[:min(len(blocks), 1+r.IntN(4))]
	for i := range blocks {
		lines := strings.SplitAfter(blocks[i], "\n")
		switch k := r.IntN(len(lines)); r.IntN(6) {
		case 0: // permissions change
			lines[k] = strings.Replace(lines[k], ":r", ":-", 1)
		case 1:
			if !strings.HasPrefix(lines[k], "# file") && lines[k] != "\n" && len(lines) > 3 {
				lines[k] = ""
			}
		case 2:
			if !strings.HasPrefix(lines[k], "#") && len(lines[k]) > 2 {
				lines[k] = entryText(r, true) + "\n"
			}
		}
		blocks[i] = strings.Join(lines, "")
	}
	text := strings.Join(blocks, "")
	c.args = append(c.args, pick(r, "--restore=-", "--restore=backup"))
	if c.args[0] == "--restore=-" {
		c.stdin = text
	} else {
		c.files["backup"] = text
	}
}
