package listing

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// Layout of a revision 2 security.capability value, struct vfs_cap_data of linux/capability.h: little endian
// magic_etc, then permitted and inheritable, low 32 bits of both before the high ones.
const (
	capSize      = 20
	capRevision2 = 0x02000000
	capEffective = 0x000001
)

// capNames are the capabilities by number, as capabilities(7) and getcap(8) call them.
var capNames = [...]string{
	"cap_chown", "cap_dac_override", "cap_dac_read_search", "cap_fowner", "cap_fsetid", "cap_kill", "cap_setgid",
	"cap_setuid", "cap_setpcap", "cap_linux_immutable", "cap_net_bind_service", "cap_net_broadcast", "cap_net_admin",
	"cap_net_raw", "cap_ipc_lock", "cap_ipc_owner", "cap_sys_module", "cap_sys_rawio", "cap_sys_chroot",
	"cap_sys_ptrace", "cap_sys_pacct", "cap_sys_admin", "cap_sys_boot", "cap_sys_nice", "cap_sys_resource",
	"cap_sys_time", "cap_sys_tty_config", "cap_mknod", "cap_lease", "cap_audit_write", "cap_audit_control",
	"cap_setfcap", "cap_mac_override", "cap_mac_admin", "cap_syslog", "cap_wake_alarm", "cap_block_suspend",
	"cap_audit_read", "cap_perfmon", "cap_bpf", "cap_checkpoint_restore",
}

// capFlags are the clauses of the text, in the order they are printed.
var capFlags = [...]struct {
	flags                  string
	permitted, inheritable bool
}{{"ip", true, true}, {"p", true, false}, {"i", false, true}}

// capText is what getcap(8) prints for the value, with ";" between clauses: cap_net_admin,cap_net_raw=ep. Values that
// this text cannot hold (other revisions, unknown capabilities, no capability at all) are given as 0xHEX.
func capText(value []byte) string {
	text, ok := capClauses(value)
	if !ok {
		return "0x" + hex.EncodeToString(value)
	}
	return text
}

func capClauses(value []byte) (text string, ok bool) {
	if len(value) != capSize {
		return "", false
	}
	word := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(value[4*i:])) }
	permitted, inheritable := word(1)|word(3)<<32, word(2)|word(4)<<32
	if word(0)&^capEffective != capRevision2 || (permitted|inheritable)>>len(capNames) != 0 {
		return "", false
	}
	effective := ""
	if word(0)&capEffective != 0 {
		effective = "e"
	}
	var clauses []string
	for _, c := range capFlags {
		var names []string
		for i, name := range capNames {
			if permitted>>i&1 == 1 == c.permitted && inheritable>>i&1 == 1 == c.inheritable {
				names = append(names, name)
			}
		}
		if names != nil {
			clauses = append(clauses, strings.Join(names, ",")+"="+effective+c.flags)
		}
	}
	return strings.Join(clauses, ";"), clauses != nil
}

// parseCap reads what capText writes, and plain hex.
func parseCap(text string) ([]byte, error) {
	if digits, ok := strings.CutPrefix(text, "0x"); ok {
		return hex.DecodeString(digits)
	}
	if raw, err := hex.DecodeString(text); err == nil && len(raw) > 0 {
		return raw, nil
	}
	var permitted, inheritable uint64
	clauses, effective := strings.Split(text, ";"), 0
	for _, clause := range clauses {
		names, flags, ok := strings.Cut(clause, "=")
		if !ok || flags == "" || strings.Trim(flags, "eip") != "" {
			return nil, fmt.Errorf("clause %q is not NAMES=FLAGS", clause)
		}
		var bits uint64
		for _, name := range strings.Split(names, ",") {
			bit, err := capBit(name)
			if err != nil {
				return nil, err
			}
			bits |= bit
		}
		if strings.Contains(flags, "e") {
			effective++
		}
		if strings.Contains(flags, "p") {
			permitted |= bits
		}
		if strings.Contains(flags, "i") {
			inheritable |= bits
		}
	}
	magic := uint32(capRevision2)
	switch effective {
	case 0:
	case len(clauses):
		magic |= capEffective
	default:
		return nil, fmt.Errorf("a file has one effective flag for all its capabilities (capabilities(7))")
	}
	if permitted|inheritable == 0 {
		return nil, fmt.Errorf("neither permitted nor inheritable capabilities")
	}
	value := binary.LittleEndian.AppendUint32(nil, magic)
	for shift := 0; shift < 64; shift += 32 {
		value = binary.LittleEndian.AppendUint32(value, uint32(permitted>>shift))
		value = binary.LittleEndian.AppendUint32(value, uint32(inheritable>>shift))
	}
	return value, nil
}

func capBit(name string) (uint64, error) {
	for i, n := range capNames {
		if n == name {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("no capability is called %q", name)
}
