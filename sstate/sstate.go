// Package sstate is a cache of root file systems: what comes out of an entry is the tree that went into it, or nothing
// comes out and there is a miss with a reason.
//
// The outer side opens the store, takes its locks and decides; the inner halves (package ferry) read and write trees and
// get entries as open files.
package sstate

import (
	"errors"
	"fmt"
	"os"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate/minisign"
	"github.com/nsferry/nsferry/sstate/store"
)

// Cache is a store and the way to its trees.
type Cache struct {
	Env   *userns.Env
	Store *store.Store
	// References is the directory of notes on which trees came from which entries; empty: none are made.
	References string
}

// miss makes an error of the archive in an entry a miss, and moves the entry away.
func miss(o *store.Object, err error) error {
	return o.Quarantine("the entry is damaged: " + err.Error())
}

// ReadPublicKeys reads files of public keys.
func ReadPublicKeys(paths []string) (keys []minisign.PublicKey, err error) {
	for _, path := range paths {
		text, err := readSmall(path)
		if err != nil {
			return nil, err
		}
		k, err := minisign.ParsePublicKey(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// ReadSecretKey reads the file of a secret key.
func ReadSecretKey(path string) (minisign.SecretKey, error) {
	text, err := readSmall(path)
	if err != nil {
		return minisign.SecretKey{}, err
	}
	k, err := minisign.ParseSecretKey(text)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return k, err
}

// readSmall reads a file that cannot be large if it is what it should be.
func readSmall(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err == nil && st.Size() > minisign.Most {
		err = fmt.Errorf("%s is no key: it has %d bytes", path, st.Size())
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// isMiss tells whether err says that an entry cannot be used.
func isMiss(err error) bool { return errors.Is(err, store.ErrMiss) }
