//! Every crash point, every way to die, one or two controllers, every end of the POST.
