package userns

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Names are bytes (path_resolution(7)), but JSON holds characters, and encoding/json writes U+FFFD for whatever is no UTF-8. On
// the control socket such a byte is the character of it in the last 256 of the last private plane, and what comes as
// one of these is written byte by byte: each byte string has one form, and all others stay as they are.
const firstByte = 0x10ff00

// Signs in JSON that a string needs, or has, this form.
var (
	replaced = []byte(`\ufffd`)
	private  = [][]byte{[]byte("\xf4\x8f\xbc"), []byte("\xf4\x8f\xbd"), []byte("\xf4\x8f\xbe"), []byte("\xf4\x8f\xbf")} // U+10FF00 to U+10FFFF
)

func hasPrivate(b []byte) bool {
	for _, p := range private {
		if bytes.Contains(b, p) {
			return true
		}
	}
	return false
}

// marshal is json.Marshal, but strings keep their bytes.
func marshal(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil || !bytes.Contains(raw, replaced) && !hasPrivate(raw) {
		return raw, err
	}
	return json.Marshal(withStrings(reflect.ValueOf(v), toWire).Interface())
}

// unmarshal is the inverse of marshal; v is a pointer.
func unmarshal(raw []byte, v any) error {
	err := json.Unmarshal(raw, v)
	if err == nil && hasPrivate(raw) {
		at := reflect.ValueOf(v).Elem()
		at.Set(withStrings(at, fromWire))
	}
	return err
}

func toWire(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r >= firstByte || r == utf8.RuneError && n == 1 {
			for _, c := range []byte(s[i : i+n]) {
				b.WriteRune(firstByte + rune(c))
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

func fromWire(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r >= firstByte {
			b = append(b, byte(r-firstByte))
		} else {
			b = utf8.AppendRune(b, r)
		}
	}
	return string(b)
}

var marshalers = []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()}

// withStrings returns v with f applied to all strings that JSON shows of it. What writes its own JSON stays as it is.
func withStrings(v reflect.Value, f func(string) string) reflect.Value {
	if !v.IsValid() {
		return v
	}
	t := v.Type()
	for _, m := range marshalers {
		if t.Implements(m) || reflect.PointerTo(t).Implements(m) {
			return v
		}
	}
	out := reflect.New(t).Elem()
	switch t.Kind() {
	case reflect.String:
		out.SetString(f(v.String()))
	case reflect.Struct:
		out.Set(v)
		for i := range t.NumField() {
			if field := t.Field(i); field.IsExported() && field.Tag.Get("json") != "-" {
				out.Field(i).Set(withStrings(v.Field(i), f))
			}
		}
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return v
		}
		inner := withStrings(v.Elem(), f)
		if t.Kind() == reflect.Pointer {
			out.Set(reflect.New(t.Elem()))
			out.Elem().Set(inner)
		} else {
			out.Set(inner)
		}
	case reflect.Slice:
		if v.IsNil() || t.Elem().Kind() == reflect.Uint8 {
			return v
		}
		out.Set(reflect.MakeSlice(t, v.Len(), v.Len()))
		eachElement(out, v, f)
	case reflect.Array:
		eachElement(out, v, f)
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		out.Set(reflect.MakeMapWithSize(t, v.Len()))
		for it := v.MapRange(); it.Next(); {
			out.SetMapIndex(withStrings(it.Key(), f), withStrings(it.Value(), f))
		}
	default:
		return v
	}
	return out
}

func eachElement(out, v reflect.Value, f func(string) string) {
	for i := range v.Len() {
		out.Index(i).Set(withStrings(v.Index(i), f))
	}
}
