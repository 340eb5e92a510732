package userns

// blame turns a failed spawn into an *EnvError.
func (e *Env) blame(err error) error { return err }
