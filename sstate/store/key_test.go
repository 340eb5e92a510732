package store

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

const someHash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestKeys holds the layout of STORE.md, which is bitbake's for its names.
func TestKeys(t *testing.T) {
	free := func(k string) string {
		h := fmt.Sprintf("%x", sha256.Sum256([]byte(k)))
		return h[:2] + "/" + h[2:4] + "/" + k + ".tar.zst"
	}
	isar := "sstate:isar-image-base:amd64-isar-linux:1.0:r0:amd64:10:" + someHash + "_rootfs_install"
	for text, want := range map[string]string{
		isar:                     "01/23/" + isar + ".tar.zst",
		isar + ".tar.zst":        "01/23/" + isar + ".tar.zst",
		"sstate:x::1:::::ab12_t": "", // one part too many
		"sstate:gcc-source::13.2:r0::12:abcd_unpack_and_patch": "ab/cd/sstate:gcc-source::13.2:r0::12:abcd_unpack_and_patch.tar.zst",
		"k":                      free("k"),
		"k.tar.zst":              free("k"),
		"with space":             free("with space"),
		"ünïcødé \xff":           free("ünïcødé \xff"),
		strings.Repeat("a", 238): free(strings.Repeat("a", 238)),
		"sstate.x":               free("sstate.x"),
	} {
		k, err := ParseKey(text)
		if want == "" {
			if err == nil {
				t.Errorf("%q: taken as %s", text, k.Path())
			}
			continue
		}
		if err != nil || k.Path() != want {
			t.Errorf("%q: %q, %v; want %q", text, k.Path(), err, want)
		}
	}
	k := key(t, isar)
	if parts, ok := k.SState(); !ok || parts.Task != "rootfs_install" || parts.PN != "isar-image-base" || parts.Unihash != someHash {
		t.Errorf("%+v", parts)
	}
}

// TestKeysRefused holds what keys cannot be, and that the message says what is wrong.
func TestKeysRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "is empty",
		".tar.zst":                     "is empty",
		".":                            "begins with",
		"..":                           "begins with",
		".nsferry":                     "begins with",
		"-k":                           "begins with",
		"a/b":                          "no path",
		"/":                            "no path",
		"a\nb":                         "control",
		"a\x00":                        "control",
		"\x7f":                         "control",
		strings.Repeat("a", 239):       "238 is the most",
		strings.Repeat("a", 300):       "238 is the most",
		"sstate:":                      "bitbake",
		"sstate:a:b:c:d:e:f:xyzw_t":    "bitbake", // not hexadecimal
		"sstate:a:b:c:d:e:f:abc_t":     "bitbake", // too short
		"sstate:a:b:c:d:e:f:abcd_":     "bitbake", // no task
		"sstate:a:b:c:d:e:f:../../x_t": "no path",
	} {
		_, err := ParseKey(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("k")
	f.Add("sstate:a:b:c:d:e:f:abcd_t")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKey(text)
		if err != nil {
			return
		}
		again, err := ParseKey(k.Name())
		if err != nil || again != k {
			t.Fatalf("%q: %+v, then %+v, %v", text, k, again, err)
		}
		if name := k.Name(); len(name) > longest || strings.ContainsAny(name, "/\x00\n") || strings.HasPrefix(name, ".") {
			t.Fatalf("%q gives the name %q", text, name)
		}
	})
}
