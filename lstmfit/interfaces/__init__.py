"""The signal and the likelihoods inside other frameworks: Cobaya and bilby. Each is imported only when it is used."""
