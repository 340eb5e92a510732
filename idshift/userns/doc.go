// Package userns keeps one promise: code that needs root inside runs in a child that has full capabilities over
// exactly the planned id maps, and that child never outlives its caller.
//
// A [Half] is the inner piece of a flow, a plain Go function. [Half.Run] starts this same binary again in a new user and
// mount namespace, hands it open files and JSON arguments, and returns its JSON result. Where the process is already
// privileged ([Env.Direct]) the half is simply called. [Env.Exec] does the same for a foreign command, with an init
// process between. [Main] is the first call of main() in every binary that uses either.
//
// How a namespace is entered (user_namespaces(7), capabilities(7)): the child is cloned with all capabilities raised as
// ambient ones, because an execve by a uid that is not yet mapped drops every other kind. It then waits on its control
// socket while the parent has newuidmap(1) and newgidmap(1) write the maps, or writes them itself when it holds
// CAP_SETUID. Only then does the child become uid 0.
//
// A missing prerequisite is an [EnvError] with its remedy; nothing falls back to a smaller map.
package userns
