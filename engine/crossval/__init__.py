"""Every fold trained, what each says of the rows it held out, and ways of training them compared."""
