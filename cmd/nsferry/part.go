package main

import (
	"reflect"
	"slices"
	"strings"
)

// partFor returns the part of the grammar that args need, and its global flags. kong takes milliseconds to build all of it, and builders call
// nsferry hundreds of times.
func partFor(args []string) (grammar any, g *Globals) {
	v := reflect.New(part(reflect.TypeFor[cli](), commandWords(args)))
	return v.Interface(), v.Elem().FieldByName("Globals").Addr().Interface().(*Globals)
}

// commandWords are the words that args begin with, global flags and their values apart.
func commandWords(args []string) (words []string) {
	lone := []string{"--json", "--quiet", "-q", "--verbose", "-v", "--no-progress"}
	valued := []string{"--mode", "--model", "--map", "--jobs", "-j"}
	for i := 0; i < len(args); i++ {
		name, _, joined := strings.Cut(args[i], "=")
		switch {
		case !strings.HasPrefix(name, "-"):
			words = append(words, args[i])
		case slices.Contains(valued, name):
			if !joined {
				i++
			}
		case !slices.Contains(lone, args[i]):
			return words
		}
	}
	return words
}

// part returns t with the command alone that the first word names, and that one's part for the words that follow; t itself when there
// is none of that name, or when it has fields that no other type can have.
func part(t reflect.Type, words []string) reflect.Type {
	if len(words) == 0 {
		return t
	}
	var fields []reflect.StructField
	found := false
	for i := range t.NumField() {
		f := t.Field(i)
		_, isCommand := f.Tag.Lookup("cmd")
		switch {
		case !f.IsExported():
			return t
		case f.Anonymous: // types that are made at run time cannot embed
			f.Anonymous, f.Tag = false, `embed:""`
		case isCommand && strings.ToLower(f.Name) != words[0]:
			continue
		case isCommand:
			found = true
			if f.Type.Kind() == reflect.Struct && f.Type.NumMethod() == 0 && reflect.PointerTo(f.Type).NumMethod() == 0 {
				f.Type = part(f.Type, words[1:])
			}
		}
		fields = append(fields, f)
	}
	if !found {
		return t
	}
	return reflect.StructOf(fields)
}
