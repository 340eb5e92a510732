package idshift

import (
	"encoding/binary"
	"fmt"
)

// The value of security.capability (linux/capability.h, capabilities(7)): u32 magic (revision in the top byte, flags below),
// then per 32 capabilities u32 permitted and u32 inheritable, one pair in revision 1, two in 2 and 3; revision 3 adds the
// u32 root id. All little endian.
const (
	capRev1, capRev1Size = 0x01000000, 12
	capRev2, capRev2Size = 0x02000000, 20
	capRev3, capRev3Size = 0x03000000, 24
	capEffective         = 0x000001
)

// Capability is a file's capabilities. Namespaced marks revision 3: they count only in namespaces whose uid 0, or that of
// an ancestor, is RootID, an outside id. Without it they count everywhere (revision 2), and RootID is 0.
type Capability struct {
	Permitted, Inheritable uint64
	Effective              bool
	Namespaced             bool
	RootID                 uint32
}

// ParseCapability reads the xattr value, revisions 1 to 3. Lengths, revisions and flags that the kernel does not define are
// errors, so that nothing is lost in Rev2 or Rev3.
func ParseCapability(b []byte) (Capability, error) {
	if len(b) < capRev1Size {
		return Capability{}, fmt.Errorf("capability: value of %d bytes", len(b))
	}
	magic := binary.LittleEndian.Uint32(b)
	size := map[uint32]int{capRev1: capRev1Size, capRev2: capRev2Size, capRev3: capRev3Size}[magic&^uint32(capEffective)]
	if size == 0 {
		return Capability{}, fmt.Errorf("capability: unknown revision or flags 0x%08x", magic)
	}
	if len(b) != size {
		return Capability{}, fmt.Errorf("capability: revision %d of %d bytes", magic>>24, len(b))
	}
	c := Capability{
		Effective:   magic&capEffective != 0,
		Permitted:   uint64(binary.LittleEndian.Uint32(b[4:])),
		Inheritable: uint64(binary.LittleEndian.Uint32(b[8:])),
	}
	if size >= capRev2Size {
		c.Permitted |= uint64(binary.LittleEndian.Uint32(b[12:])) << 32
		c.Inheritable |= uint64(binary.LittleEndian.Uint32(b[16:])) << 32
	}
	if size == capRev3Size {
		c.Namespaced = true
		c.RootID = binary.LittleEndian.Uint32(b[20:])
	}
	return c, nil
}

// Rev2 returns the value without a root id, 20 bytes: what archives hold and inner root reads and writes.
func (c Capability) Rev2() []byte { return c.append(capRev2) }

// Rev3 returns the value that counts below the namespace root rootid, an outside id, 24 bytes: what is on disk after inner
// root wrote it.
func (c Capability) Rev3(rootid uint32) []byte {
	return binary.LittleEndian.AppendUint32(c.append(capRev3), rootid)
}

// append encodes the part that revisions 2 and 3 have in common.
func (c Capability) append(magic uint32) []byte {
	if c.Effective {
		magic |= capEffective
	}
	b := make([]byte, 0, capRev3Size)
	for _, v := range []uint32{magic, uint32(c.Permitted), uint32(c.Inheritable), uint32(c.Permitted >> 32), uint32(c.Inheritable >> 32)} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
